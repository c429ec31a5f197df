"""`inspect`: what a checkpoint is, also when it cannot be used; by its files alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.fingerprint import digest_model
from rembert_ray.report.inspection import inspect_checkpoint
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.put import put_new
from tests.conftest import LABELS
from tests.tasks.random_models import save_random_roberta

DEMO = Path(__file__).parents[2] / "demo"


def copied(model_folder: Path, target: Path) -> Path:
    shutil.copytree(model_folder, target)
    return target


def test_a_tagger_of_rembert(model_folder: Path) -> None:
    found = inspect_checkpoint(str(model_folder))
    assert found.faults == []
    assert (found.family, found.architectures) == ("rembert", ["RemBertForTokenClassification"])
    assert (found.made_for, found.tasks, found.head) == ("tag", ["tag", "embed"], "tag")
    assert found.labels == LABELS
    assert found.sizes["hidden"] == 32
    assert found.sizes["positions"] == 512
    # 32 x 6 weights and 6 biases.
    assert found.parameters["head"] == 198
    assert found.weight_bytes == 4 * sum(found.parameters.values())
    assert set(found.dtypes) == {"F32"}
    assert (found.tokenizer, found.tokenizer_size) == ("RemBertTokenizer", found.sizes["vocabulary"])
    assert found.model_digest == digest_model(locate(str(model_folder)))
    assert (found.missing, found.unused) == ([], [])


def test_a_classifier_of_roberta_counts_its_tokens_not_its_positions(tmp_path: Path) -> None:
    folder = save_random_roberta(_made(tmp_path / "model"), "sequence_classification", ["a b c", "hello"])
    found = inspect_checkpoint(str(folder))
    assert found.faults == []
    assert (found.family, found.made_for) == ("roberta-prelayernorm", "classify")
    assert found.sizes["positions"] == 512
    assert set(found.parameters) == {"embeddings", "layers", "head"}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("task", ["answer", "choose", "classify", "fill_mask", "generate"])
def test_each_model_of_the_demo_is_made_for_its_task(task: str) -> None:
    found = inspect_checkpoint(str(DEMO / task))
    assert (found.made_for, found.faults) == (task, [])


def test_another_head_names_what_is_missing_and_what_is_not_used(model_folder: Path) -> None:
    found = inspect_checkpoint(str(model_folder), "answer")
    assert found.missing == ["qa_outputs.bias", "qa_outputs.weight"]
    assert found.unused == ["classifier.bias", "classifier.weight"]
    assert "2 missing tensors" in found.faults[0].what


def test_a_head_that_is_there_but_of_no_use_is_a_fault() -> None:
    found = inspect_checkpoint(str(DEMO / "fill_mask"), "generate")
    assert found.missing == []
    assert [fault.what for fault in found.faults] == ["the model is no decoder"]


def test_of_a_folder_that_cannot_be_used_all_is_told_that_can_be(model_folder: Path, tmp_path: Path) -> None:
    folder = copied(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    (folder / "sentencepiece.model").unlink()
    found = inspect_checkpoint(str(folder))
    assert (found.family, found.sizes["layers"], found.tasks) == ("bert", 2, [])
    assert found.parameters["head"] == 198
    assert any("model_type is 'bert'" in fault.what for fault in found.faults)
    assert len(found.faults) == 2


def test_weights_that_are_cut_short_leave_configuration_and_tokenizer(model_folder: Path, tmp_path: Path) -> None:
    folder = copied(model_folder, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    found = inspect_checkpoint(str(folder))
    assert (found.family, found.tokenizer, found.parameters) == ("rembert", "RemBertTokenizer", {})
    assert ["cut short" in fault.what for fault in found.faults] == [True]


def test_nothing_there_is_one_fault(tmp_path: Path) -> None:
    assert [fault.what for fault in inspect_checkpoint(str(tmp_path / "nope")).faults] == ["nothing there"]
    with pytest.raises(UnusableError, match="did you mean 'tag'"):
        inspect_checkpoint(str(tmp_path), "tagg")


def test_a_url_works_too(model_folder: Path, store: Location) -> None:
    for path in model_folder.iterdir():
        put_new(store.child("model", path.name), path.read_bytes())
    found = inspect_checkpoint(str(store.child("model")))
    assert (found.made_for, found.faults) == ("tag", [])


def test_the_verb_prints_lines_or_json_and_ends_with_two_when_there_are_faults(
    model_folder: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["inspect", str(model_folder)])
    assert done.exit_code == 0
    assert "tasks         tag (its own head), embed" in done.stdout.splitlines()
    as_json = CliRunner().invoke(app, ["inspect", "--json", "--task", "answer", str(model_folder)])
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["missing"] == ["qa_outputs.bias", "qa_outputs.weight"]
    nowhere = CliRunner().invoke(app, ["inspect", str(tmp_path / "nope")])
    assert nowhere.exit_code == 2
    assert "nothing there" in nowhere.stderr


def test_names_of_others_cannot_write_to_the_terminal(model_folder: Path, tmp_path: Path) -> None:
    folder = copied(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): f"\x1b[2J\u202e{number}" for number in range(6)}
    config["architectures"] = ["\x1b]0;owned\x07"]
    (folder / "config.json").write_text(json.dumps(config))
    lines = list(inspect_checkpoint(str(folder)).lines())
    assert all(line.isprintable() for line in lines)


def test_it_needs_no_torch(model_folder: Path) -> None:
    code = (
        "import sys\nfrom rembert_ray.report.inspection import inspect_checkpoint\n"
        f"assert not inspect_checkpoint({str(model_folder)!r}).faults\n"
        "sys.exit(repr({'torch', 'ray'} & sys.modules.keys()) if {'torch', 'ray'} & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
