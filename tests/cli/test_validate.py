"""`rembert-ray validate`: everything that files alone can tell, at once, soon, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.storage.location import Location
from rembert_ray.storage.put import put_new

REPOSITORY = Path(__file__).parents[2]
GOOD = "task: tag\nmodel: m\ninput: {path: c}\noutput: {path: o}\n"


def run(*arguments: str):
    return CliRunner().invoke(app, ["validate", *arguments])


def test_the_manifests_of_the_repository_are_valid_and_the_next_command_is_named() -> None:
    names = [str(path) for path in sorted((REPOSITORY / "manifests").glob("*.yaml"))]
    done = run(*names)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    assert lines[0] == (
        f"{names[0]}: valid (task answer; `rembert-ray plan {names[0]}` looks at the model and the corpus)"
    )


def test_neither_model_nor_corpus_nor_output_is_touched(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(GOOD)
    assert run(str(tmp_path / "x.yaml")).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_faults_of_yaml_values_task_head_and_places_come_at_once_as_json(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(GOOD + "head: {aggregation: simpel, top: 1}\nsharding: {rows: 0}\nzz: *alias\n")
    (tmp_path / "y.yaml").write_text(GOOD)
    done = run("--json", "--set", "limits.attempts=many", str(path), str(tmp_path / "y.yaml"))
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert [item["valid"] for item in found] == [False, False]
    places = [(fault["line"], fault["column"], fault["key"]) for fault in found[0]["faults"]]
    assert places == [
        (5, 8, "head.aggregation"),
        (5, 29, "head.top"),
        (6, 12, "sharding.rows"),
        (7, 5, "zz"),
        (None, None, "limits.attempts"),
    ]
    assert found[0]["faults"][0] == {
        "file": str(path),
        "line": 5,
        "column": 8,
        "key": "head.aggregation",
        "what": "expected 'none', 'simple', 'first', 'average' or 'max', got 'simpel'",
        "fix": "did you mean 'simple'?",
    }
    assert [fault["file"] for fault in found[1]["faults"]] == ["--set"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("input: {path: 's4://b/x'}", "unknown scheme 's4'"),
        ("output: {path: 's3://'}", "no bucket"),
        ("input: {path: c, columns: {txt: body}}", "task tag reads no column 'txt'"),
        ("task: tagg", "unknown task 'tagg'"),
    ],
)
def test_what_a_later_step_would_find_is_found_now_with_its_line(tmp_path: Path, line: str, what: str) -> None:
    key = line.split(":")[0]
    text = "".join(f"{old}\n" for old in GOOD.splitlines() if not old.startswith(key)) + line + "\n"
    (tmp_path / "x.yaml").write_text(text)
    done = run(str(tmp_path / "x.yaml"))
    assert done.exit_code == 2
    assert what in done.stderr
    assert f"\n4 | {line}\n" in done.stderr
    assert done.stderr.endswith(f"1 fault in {tmp_path}/x.yaml\n")


def test_a_manifest_at_a_store_has_its_places_if_not_its_lines(store: Location) -> None:
    put_new(store.child("x.yaml"), f"{GOOD}zz: 1\n".encode())
    name = str(store.child("x.yaml"))
    done = run(name)
    assert done.exit_code == 2
    assert f" --> {name}:5:1 zz\n" in done.stderr
    assert ("5 | zz: 1" in done.stderr) == store.is_local


def test_validate_imports_only_what_it_needs(tmp_path: Path) -> None:
    """A person waits for it; what a URL, a Parquet file or Ray needs would double its time."""
    path = tmp_path / "x.yaml"
    path.write_text(GOOD.replace("path: c", "path: 's3://bucket/corpus'"))
    code = (
        "import sys\n"
        "from rembert_ray.cli import app\n"
        f"sys.argv = ['rembert-ray', 'validate', {str(path)!r}]\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert end.code == 0, end\n"
        "heavy = {'torch', 'ray', 'transformers', 'pandas', 'fsspec', 's3fs', 'botocore', 'asyncio', 'rich.console',\n"
        "    'concurrent.futures', 'sentencepiece', 'tokenizers', 'pyarrow.parquet', 'pyarrow.fs', 'pyarrow.dataset',\n"
        "    'rembert_ray.check', 'rembert_ray.plan', 'rembert_ray.footers'}\n"
        "sys.exit(repr(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
