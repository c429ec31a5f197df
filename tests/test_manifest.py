"""The manifest: what is accepted, what each key means, and that every mistake says where it is and what to do."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML

from rembert_ray.errors import UnusableError
from rembert_ray.manifest import Manifest, load_manifest, resolve_path
from rembert_ray.manifest_source import parse_yaml
from rembert_ray.schema_faults import faults_from
from rembert_ray.storage.location import locate

MINIMAL = """\
task: tag
model: ../model
input:
  path: corpus
output:
  path: out
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "manifests").mkdir()
    return tmp_path / "manifests"


def load(folder: Path, text: str, *overrides: str) -> Manifest:
    (folder / "tag.yaml").write_text(text)
    return load_manifest(str(folder / "tag.yaml"), overrides)


def faults_of(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(UnusableError) as caught:
        load(folder, text, *overrides)
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


# What is accepted


def test_defaults(folder: Path) -> None:
    manifest = load(folder, MINIMAL)
    assert manifest.model_dump(mode="json") == {
        "task": "tag",
        "model": str(folder.parent / "model"),
        "input": {"path": str(folder / "corpus"), "columns": {}, "keep": [], "rename": {}},
        "output": {"path": str(folder / "out")},
        "head": {},
        "text": {"max_tokens": None, "overlap": 64, "long_documents": "window"},
        "sharding": {"rows": 10_000, "bytes": 64 * 1024**2},
        "resources": dict.fromkeys(["actors", "cpus_per_actor", "encoders", "batch_tokens"], "auto")
        | {"gpus_per_actor": 0.0},
        "precision": "auto",
        "limits": {"errors": 1.0, "stall_s": 900.0, "attempts": 3, "storage_s": 120.0},
        "drift": {"against": None, "warn": 0.1, "fail": 0.25, "gate": False},
    }


def test_manifest_survives_json_and_pickle(folder: Path) -> None:
    manifest = load(folder, MINIMAL + "head: {labels: [a, b], top_k: 3}\nresources: {gpus_per_actor: 0.5}\n")
    assert Manifest.model_validate_json(manifest.model_dump_json()).model_dump() == manifest.model_dump()
    assert Manifest.model_validate(json.loads(manifest.model_dump_json())).model_dump() == manifest.model_dump()
    assert pickle.loads(pickle.dumps(manifest)).where("task") == manifest.where("task")


def test_manifest_cannot_be_changed(folder: Path) -> None:
    manifest = load(folder, MINIMAL)
    with pytest.raises(ValidationError):
        manifest.task = "embed"


def test_section_with_everything_commented_out_means_defaults(folder: Path) -> None:
    manifest = load(folder, MINIMAL + "head:\n  # top_k: 1\nsharding:\nlimits: null\n")
    assert manifest.head == {}
    assert manifest.sharding.rows == 10_000


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [("64 MiB", 64 * 1024**2), ("1.5kb", 1500), ("1 GiB", 1024**3), ("123", 123), ("7 B", 7)],
)
def test_sizes(folder: Path, written: str, n_bytes: int) -> None:
    assert load(folder, MINIMAL + f"sharding: {{bytes: {written}}}").sharding.bytes == n_bytes


def test_yaml_1_2_scalars() -> None:
    text = (
        "a: no\nb: 22:30\nc: 1_000\nd: 010\ne: 0o17\nf: 0x1F\ng: 1e-3\nh: ~\ni: 2024-01-01\nj: 'true'\nk: True\nl: =\n"
    )
    assert parse_yaml(text, "x").values == {
        "a": "no", "b": "22:30", "c": "1_000", "d": 10, "e": 15, "f": 31, "g": 0.001, "h": None, "i": "2024-01-01",
        "j": "true", "k": True, "l": "=",
    }  # fmt: skip


YAML_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["C"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.-1:# ", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1), YAML_VALUES, max_size=5))
@settings(deadline=None)
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    source = parse_yaml(json.dumps(value), "x")
    assert source.faults == []
    assert source.values == value


@given(st.text("ab:-&*!{}[]<'\"#|>%@`, \n\t", max_size=40))
@example("a: &x [*x]")
@example("<<: [")
@settings(deadline=None)
def test_any_text_gives_a_value_or_a_fault(text: str) -> None:
    source = parse_yaml(text, "x")
    if not source.faults:
        # Whatever is taken without a fault is YAML for the complete parser too, and plain data.
        YAML(typ="safe", pure=True).compose(text)
        json.dumps(source.values).encode()


def test_surrogates_are_joined_or_refused() -> None:
    assert parse_yaml(r'a: "\ud83d\ude00"', "x").values == {"a": "\U0001f600"}
    source = parse_yaml(r'a: "\ud83d"', "x")
    assert [str(fault) for fault in source.faults] == [
        "x:1:4 a: half of a surrogate pair is no character (write the character itself)"
    ]


# Paths


def test_paths_of_the_file_and_of_set(folder: Path) -> None:
    text = MINIMAL.replace("path: out", "path: ~/out")
    manifest = load(folder, text, "input.path=data/*.parquet", "model=s3://bucket/model")
    assert manifest.input.path == str(folder.parent / "here" / "data" / "*.parquet")
    assert manifest.model == "s3://bucket/model"
    assert manifest.output.path == "/home/somebody/out"
    assert load(folder, text, "input={path: x}").input.path == str(folder.parent / "here" / "x")


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("../demo", "/a/b", "/a/demo"),
        ("/x", "s3://bucket/a", "/x"),
        ("../demo/m", "s3://bucket/a", "s3://bucket/demo/m"),
        ("x", "s3://bucket", "s3://bucket/x"),
        ("..", "s3://bucket/a", "s3://bucket"),
        ("memory://x", "/a", "memory://x"),
    ],
)
def test_relative_paths(path: str, base: str, expected: str) -> None:
    assert resolve_path(path, base) == expected


def test_path_out_of_the_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="leads out of s3://bucket"):
        resolve_path("../../x", "s3://bucket/a")


def test_manifest_from_a_url() -> None:
    location = locate("memory://test-manifest/jobs/tag.yaml")
    location.filesystem.pipe_file(location.path, MINIMAL.encode())
    manifest = load_manifest(location.url)
    assert manifest.model == "memory://test-manifest/model"
    assert manifest.where("task") == "memory://test-manifest/jobs/tag.yaml:1:1 task"
    with pytest.raises(UnusableError, match="no such manifest"):
        load_manifest("memory://test-manifest/jobs/none.yaml")


# Where things were written


def test_where(folder: Path) -> None:
    manifest = load(folder, MINIMAL + "head:\n  top_k: 3\n", "input.keep=[a, b]")
    name = str(folder / "tag.yaml")
    assert manifest.where("head.top_k") == f"{name}:8:3 head.top_k"
    assert manifest.where("head.other") == f"{name}:7:1 head.other"
    assert manifest.where("limits.errors") == f"{name} limits.errors"
    assert manifest.where("input.keep") == "--set input.keep"
    assert manifest.where(("input", "keep", 1)) == "--set input.keep[1]"
    replaced = load(folder, MINIMAL + "head:\n  top_k: 3\n", "head={other: 1}")
    assert replaced.where("head.top_k") == "--set head.top_k"
    assert Manifest(**manifest.model_dump()).where("head.top_k") == "manifest head.top_k"


def test_a_task_explains_its_own_parameters(folder: Path) -> None:
    class Parameters(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        aggregation: str = "simple"
        top_k: int = 1

    manifest = load(folder, MINIMAL + "head:\n  agregation: first\n  top_k: many\n")
    with pytest.raises(ValidationError) as caught:
        Parameters.model_validate(manifest.head)
    found = faults_from(caught.value, Parameters, manifest.where, prefix=("head",))
    assert [str(fault).removeprefix(f"{folder}/") for fault in found] == [
        "tag.yaml:9:3 head.top_k: expected a whole number, got 'many'",
        "tag.yaml:8:3 head.agregation: unknown key (did you mean 'aggregation'?)",
    ]


# Mistakes: each row is what is added to a good manifest, and the fault that it gives

MISTAKES = {
    "tsk: x": "tag.yaml:7:1 tsk: unknown key (did you mean 'task'?)",
    "shardin: {rows: 1}": "tag.yaml:7:1 shardin: unknown key (did you mean 'sharding'?)",
    "sharding: {row: 1}": "tag.yaml:7:12 sharding.row: unknown key (did you mean 'rows'?)",
    "sharding: {rows: 0}": "tag.yaml:7:12 sharding.rows: must be greater than 0, is 0",
    "sharding: {rows: -5}": "tag.yaml:7:12 sharding.rows: must be greater than 0, is -5",
    "sharding: {rows: 1.5}": "tag.yaml:7:12 sharding.rows: expected a whole number, got 1.5",
    "sharding: {rows: true}": "tag.yaml:7:12 sharding.rows: expected a whole number, got true",
    "sharding: {rows: 3000000000}": "tag.yaml:7:12 sharding.rows: must be at most 2147483647, is 3000000000",
    "sharding: {rows: null}": "tag.yaml:7:12 sharding.rows: expected a whole number, got nothing",
    "sharding: {bytes: 64 potatoes}": (
        "tag.yaml:7:12 sharding.bytes: expected a size such as 64 MiB or a number of bytes, got '64 potatoes'"
    ),
    "sharding: {bytes: 0 MiB}": "tag.yaml:7:12 sharding.bytes: must be greater than 0, is 0",
    "sharding: [1]": (
        "tag.yaml:7:1 sharding: expected a section of keys and values, got a list (write `key: value` lines below it)"
    ),
    "head: text": (
        "tag.yaml:7:1 head: expected a section of keys and values, got 'text' (write `key: value` lines below it)"
    ),
    "head: {a: [.nan]}": "tag.yaml:7:1 head: numbers must be finite (no .nan, no .inf)",
    "text: {overlap: -1}": "tag.yaml:7:8 text.overlap: must be at least 0, is -1",
    "text: {max_tokens: 64}": "tag.yaml:7:1 text: text.overlap (64) must be smaller than text.max_tokens (64)",
    "precision: fp16": (
        "tag.yaml:7:1 precision: expected 'auto', 'float32', 'bfloat16', 'float16', 'float8' or 'int8', got 'fp16'"
    ),
    "resources: {actors: 0}": "tag.yaml:7:13 resources.actors: expected auto or a whole number above 0, got 0",
    "resources: {gpus_per_actor: 1.5}": (
        "tag.yaml:7:13 resources.gpus_per_actor: expected 0, a share of one GPU such as 0.5, or a whole number, got 1.5"
    ),
    "resources: {cpus_per_actor: .nan}": (
        "tag.yaml:7:13 resources.cpus_per_actor: expected auto or a number above 0, got nan"
    ),
    "limits: {errors: 5}": "tag.yaml:7:10 limits.errors: must be at most 1.0, is 5",
    "limits: {stall_s: .inf}": "tag.yaml:7:10 limits.stall_s: expected a finite number, got inf",
    "limits: {attempts: three}": "tag.yaml:7:10 limits.attempts: expected a whole number, got 'three'",
    "task: embed": (
        "tag.yaml:7:1 task: the key is written twice, first at {folder}/tag.yaml:1:1 (remove one of the two)"
    ),
    "head: &x {}": "tag.yaml:7:7 head: anchors (&x) are not supported (remove the anchor)",
    "head: *x": "tag.yaml:7:7 head: aliases (*x) are not supported (write the value out, in quotes if it is text)",
    "head: {a: !!python/name:os.system x}": (
        "tag.yaml:7:11 head.a: tags (tag:yaml.org,2002:python/name:os.system) are not supported (remove the tag)"
    ),
    "<<: {precision: float32}": "tag.yaml:7:1 <<: merge keys (<<) are not supported (write the values out)",
    "head:\n\ttop_k: 1": "tag.yaml:8:1: a tab stands where YAML wants spaces (replace tabs by spaces)",
    "---\ntask: x": "tag.yaml:7:1: a second document starts here (keep one document per file)",
    "? [a]\n: b": "tag.yaml:7:3: a key must be plain text (write key: value)",
    "head: {a: 1": "not valid YAML",
    "head: " + "[" * 5000: "nested too deeply",
}


@pytest.mark.parametrize(("added", "fault"), MISTAKES.items(), ids=[text[:30] for text in MISTAKES])
def test_mistakes(folder: Path, added: str, fault: str) -> None:
    [found] = faults_of(folder, MINIMAL + added + "\n")
    if fault.startswith("tag.yaml"):
        assert found == fault.replace("{folder}", str(folder))
    else:
        assert fault in found


def test_mistakes_in_place(folder: Path) -> None:
    text = "model: 5\ninput:\n  path: ''\n  columns: {text: 3}\n  keep: id\noutput:\n"
    assert faults_of(folder, text) == [
        "tag.yaml task: required key is missing (add `task: ...`, name of a file in rembert_ray/tasks)",
        "tag.yaml:1:1 model: expected text, got 5 (put it in quotes)",
        "tag.yaml:3:3 input.path: must not be empty",
        "tag.yaml:4:13 input.columns.text: expected text, got 3 (put it in quotes)",
        "tag.yaml:5:3 input.keep: expected a list, got 'id' (write [first, second])",
        "tag.yaml:6:1 output.path: required key is missing (add `path: ...`, folder or prefix; local or URL)",
    ]


def test_all_faults_at_once(folder: Path) -> None:
    added = "sharding: {bytes: x, rows: -1}\nhead: {a: *b}\nlimit: {}\n"
    found = faults_of(folder, MINIMAL + added, "text.overlp=3", "precision=fp8", "nonsense")
    assert len(found) == 7
    assert found[0].startswith("tag.yaml:8:11 head.a: aliases")
    assert found[1].startswith("--set nonsense: expected key=value")
    assert "--set text.overlp: unknown key (did you mean 'overlap'?)" in found
    assert "--set precision: expected 'auto', 'float32', 'bfloat16', 'float16', 'float8' or 'int8', got 'fp8'" in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the manifest is empty"),
        ("# only a comment\n", "the manifest is empty"),
        ("- a\n- b\n", "a manifest is a mapping"),
        ("just text", "a manifest is a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_manifest(folder: Path, text: str, fault: str) -> None:
    [found] = faults_of(folder, text, "precision=float32")
    assert found.startswith("tag.yaml: ")
    assert fault in found


def test_unreadable_files(folder: Path) -> None:
    load(folder, MINIMAL)
    (folder / "latin.yaml").write_bytes("task: \xfc".encode("latin-1"))
    (folder / "big.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    for name, fault in {
        "tga.yaml": r"no such manifest \(did you mean 'tag.yaml'\?\)",
        "none/tag.yaml": "no such manifest",
        ".": "a folder, not a manifest",
        "latin.yaml": "not UTF-8 text: byte 6 is 0xfc",
        "big.yaml": "1,048,577 bytes or more, the most for such a file is 1,048,576",
    }.items():
        with pytest.raises(UnusableError, match=fault):
            load_manifest(str(folder / name))


# --set


def test_set_values_are_yaml(folder: Path) -> None:
    manifest = load(
        folder,
        MINIMAL,
        "sharding.rows=5",
        "sharding.rows=6",
        "sharding.bytes=1 MiB",
        "head.a.b=[x, {y: 1}]",
        "head.c=a=b",
        "head.d=",
        "head.e='5'",
        "text.max_tokens=null",
    )
    assert (manifest.sharding.rows, manifest.sharding.bytes) == (6, 1024**2)
    assert manifest.head == {"a": {"b": ["x", {"y": 1}]}, "c": "a=b", "d": None, "e": "5"}


@pytest.mark.parametrize(
    ("argument", "fault"),
    [
        ("shardin.rows=5", "--set shardin: unknown key (did you mean 'sharding'?)"),
        ("task.x=1", "--set task.x: 'task' holds a value, not a section (use --set task=value)"),
        ("input.path=*.parquet", "--set input.path: aliases (*.parquet) are not supported"),
        ("output.path=@x", "--set output.path: not valid YAML"),
        ("=5", "--set =5: expected key=value"),
        ("a..b=5", "--set a..b=5: expected key=value"),
        ("input=5", "--set input: expected a section of keys and values, got 5"),
    ],
)
def test_set_mistakes(folder: Path, argument: str, fault: str) -> None:
    found = faults_of(folder, MINIMAL, argument)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_set_over_something_refused_is_checked_too(folder: Path) -> None:
    found = faults_of(folder, MINIMAL + "precision: *x\n", "precision=fp16")
    assert [fault.split(":")[0] for fault in found] == ["tag.yaml", "--set precision"]


def test_set_repairs_the_file(folder: Path) -> None:
    assert load(folder, MINIMAL + "precision: fp16\n", "precision=float16").precision == "float16"


def test_neither_torch_nor_ray_is_imported() -> None:
    code = (
        "import sys, rembert_ray.manifest, rembert_ray.plan, rembert_ray.fingerprint;"
        "print(sorted({'torch', 'ray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
