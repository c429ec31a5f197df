"""README.md and docs/: the pages build, say what the code says, and what they tell people to type works."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from ruamel.yaml import YAML

from rembert_ray.task_check import check_manifest
from rembert_ray.tasks.base import COMMON_FIELDS
from tests.conftest import write_manifest
from tests.documentation import INLINE, PAGES, REPOSITORY, Workspace, blocks, commands, parse, run_python

DOCS = REPOSITORY / "docs"
EXAMPLE_TASK = DOCS / "examples" / "uncertainty.py"
HAND_WRITTEN = [page for page in PAGES if page.parent.name != "reference"]


def load(path: Path):
    """A Python file of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_pages_are_those_of_the_code():
    made = load(DOCS / "reference.py").pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").iterdir()}
    assert there == made, "made by `python docs/reference.py`"


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) == len(PAGES)  # one of each, 404 in place of README
    for page in pages:
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        assert loaded == [], page
    assert not [*tmp_path.rglob("*.py")]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    before, n_threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    try:
        made = Workspace(folder)
        made.run(["make", "demo"])
        yield made
    finally:
        os.chdir(before)
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page, workspace):
    for words in commands(page):
        workspace.run(words)
    for words in INLINE.findall(page.read_text()):
        parse(words.split(), may_lack_arguments=True)


@pytest.mark.parametrize(
    "line",
    ["rembert-ray run m.yaml --dry-ran", "rembert-ray stat out/tag", "rembert-ray plan", "rembert-ray sample nowhere"]
    + ["make demos", "python jobs/tag.py --manifesto m.yaml", "python -m benchmarks.chaos --often", "python nowhere.py"]
    + ["ray job submitt -- python jobs/tag.py", "ray start --heads"],
)
def test_commands_that_do_not_work_are_found(line, workspace):
    # Typer, Ray, argparse and make each have errors of their own; argparse's ends the process.
    with pytest.raises((Exception, SystemExit)) as caught:
        workspace.run(line.split())
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_are_what_they_say(page, workspace, tmp_path):
    for block in blocks(page):
        if block.language == "python":
            run_python(block.text)
        elif block.language == "yaml":
            values = YAML(typ="safe").load(block.text)
            if "task" in values and values["task"] != EXAMPLE_TASK.stem:
                check_manifest(write_manifest(tmp_path, block.text))


def test_the_data_format_names_every_footer_and_column(workspace):
    text = (DOCS / "data-format.md").read_text()
    part = next(Path("out/tag").glob("part-*.parquet"))
    keys = [key.decode().removeprefix("rembert_ray.") for key in pq.read_metadata(part).metadata if b"rembert" in key]
    assert [key for key in keys if f"`{key}`" not in text and not key.startswith("version_")] == []
    assert pq.read_schema(part).names[-len(COMMON_FIELDS) :] == [field.name for field in COMMON_FIELDS]
    for field in COMMON_FIELDS:
        assert f"| `{field.name}` | `{field.type}` |" in text


def test_the_pages_name_every_alert_and_every_event():
    rules = YAML(typ="safe").load((REPOSITORY / "manifests/grafana/alerts.yaml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules if f"| `{rule['alert']}` |" not in (DOCS / "metrics.md").read_text()] == []
    code = "".join(path.read_text() for path in (REPOSITORY / "rembert_ray").rglob("*.py"))
    events = set(re.findall(r'\.say\(\s*"(\w+)"', code))
    assert "progress" in events
    assert [event for event in sorted(events) if f"`{event}`" not in (DOCS / "logs.md").read_text()] == []


def test_the_example_task_is_found_by_its_name_and_gives_entropies(tmp_path):
    shutil.copytree(REPOSITORY / "rembert_ray", tmp_path / "rembert_ray", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE_TASK, tmp_path / "rembert_ray" / "tasks")
    page = next(b.text for b in blocks(DOCS / "extending.md") if b.language == "yaml")
    manifest = write_manifest(tmp_path, page.replace("demo/", f"{REPOSITORY}/demo/"))
    command = [sys.executable, "-m", "rembert_ray", "run", manifest, "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("row ")]
    texts = pq.read_table(REPOSITORY / "demo/corpus/treebank_sentences.parquet")["text"].to_pylist()
    spread = [texts[number * len(texts) // len(shown)] for number in range(len(shown))]
    assert shown == pytest.approx([entropy(text) for text in spread], abs=2e-3)


def entropy(text: str) -> float:
    """Of the demo's tagger over the tokens of one text, from 0 to 1, by its definition."""
    from rembert_ray import AutoTokenizer, RemBertForTokenClassification

    model = RemBertForTokenClassification.from_pretrained(str(REPOSITORY / "demo/model")).float().eval()
    with torch.no_grad():
        logits = model(
            **AutoTokenizer.from_pretrained(str(REPOSITORY / "demo/model"))(text, return_tensors="pt")
        ).logits
    shares = torch.distributions.Categorical(logits=logits[0, 1:-1])
    return float(shares.entropy().mean() / torch.log(torch.tensor(logits.shape[-1])))


def test_the_example_architecture_is_that_of_transformers(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    oracle = transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=64)).eval()
    oracle.save_pretrained(tmp_path)
    ours = load(DOCS / "examples" / "bert.py").BertModel.from_pretrained(str(tmp_path)).eval()
    ids = torch.randint(1, 50, (2, 9))
    with torch.no_grad():
        found, wanted = ours(input_ids=ids), oracle(input_ids=ids)
    torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state)
    torch.testing.assert_close(found.pooler_output, wanted.pooler_output)
