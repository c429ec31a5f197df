"""The demo's examples of the tasks beside tagging: manifests fit, corpora are what they say, figures are true.

It must not run a job: the stages have tests of their own.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from rembert_ray.check import check_job
from rembert_ray.manifest import load_manifest
from rembert_ray.models.config import AutoConfig
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import find_task

REPOSITORY = Path(__file__).parent.parent
DEMO = REPOSITORY / "demo"
TRAINED = ("classify", "fill_mask", "generate")
TASKS = (*TRAINED, "answer", "choose")
MAX_MODEL_BYTES, MAX_VOCABULARY_BYTES = 600_000, 150_000


def read_corpus(task: str) -> list[dict]:
    paths = sorted((DEMO / f"corpus_{task}").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEMO))
        yield import_module("head_figures")


@pytest.fixture(scope="module")
def texts(figures):
    return figures.Texts.read(DEMO, "fill_mask")


def load(task: str) -> torch.nn.Module:
    kind, folder = find_task(task), locate(str(DEMO / task))
    config = AutoConfig.from_pretrained(folder)
    return kind(kind.Parameters()).load_model(folder, config, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("task", TASKS)
def test_manifest_model_and_corpus_fit_each_other(task, tmp_path):
    manifest = load_manifest(str(REPOSITORY / f"manifests/{task}.yaml"), [f"output.path={tmp_path}/out"])
    job = check_job(manifest, for_writing=False)
    assert job.model == locate(str(DEMO / task))
    assert job.plan.n_shards >= 1
    assert load(task).dtype == torch.float32


@pytest.mark.parametrize("task", TASKS)
def test_models_are_small_and_share_a_vocabulary(task):
    assert (DEMO / task / "model.safetensors").stat().st_size <= MAX_MODEL_BYTES
    vocabulary = (DEMO / task / "sentencepiece.model").read_bytes()
    assert len(vocabulary) <= MAX_VOCABULARY_BYTES
    assert vocabulary == (DEMO / "fill_mask/sentencepiece.model").read_bytes()


@pytest.mark.parametrize("task", TRAINED)
def test_figures_on_held_back_sentences_are_what_is_written_down(task, figures, texts):
    written = json.loads((DEMO / task / "accuracy.json").read_text())
    found = getattr(figures, f"evaluate_{task}")(load(task), texts)
    assert found == pytest.approx(written, abs=0.003, rel=0.001)


def test_trained_models_are_better_than_guesses_that_know_the_language():
    written = {task: json.loads((DEMO / task / "accuracy.json").read_text()) for task in TRAINED}
    assert written["classify"]["all"] > 0.95
    for task in ("fill_mask", "generate"):
        assert written[task]["top_1"] > 1.15 * written[task]["guess_top_1"]
        assert written[task]["top_5"] > 1.15 * written[task]["guess_top_5"]


def test_no_held_back_sentence_is_trained_on(texts):
    assert len(texts.held_back) > 1000
    assert not {sentence.text for sentence in texts.held_back} & {sentence.text for sentence in texts.train}


def test_filled_masks_give_held_back_sentences(texts):
    held_back = {sentence.id: sentence.text for sentence in texts.held_back}
    rows = read_corpus("fill_mask")
    assert len(rows) >= 250
    for row in rows:
        parts = row["text"].split("[MASK]")
        assert len(parts) == len(row["answers"]) + 1
        filled = "".join(part + word for part, word in zip(parts, [*row["answers"], ""], strict=True))
        assert filled == held_back[row["id"]]


def test_prompts_begin_held_back_sentences(texts):
    held_back = {sentence.id: sentence.text for sentence in texts.held_back}
    rows = read_corpus("generate")
    assert len(rows) >= 100
    assert all(" ".join(held_back[row["id"]].split()).startswith(row["prompt"]) for row in rows)


def test_answers_are_in_their_contexts_and_labels_among_their_choices():
    assert all(answer in row["context"] for row in read_corpus("answer") for answer in row["answers"])
    assert all(0 <= row["label"] < len(row["choices"]) for row in read_corpus("choose"))


def test_every_shipped_text_is_in_the_notice():
    notice = (DEMO / "NOTICE.md").read_text()
    for path in DEMO.rglob("*.parquet"):
        name = path.relative_to(DEMO)
        assert f"`{name}`" in notice or f"`{name.parent}/*.parquet`" in notice


@pytest.mark.parametrize("task", ["answer", "choose"])
def test_manifests_say_that_weights_are_random(task):
    assert "random weights" in (REPOSITORY / f"manifests/{task}.yaml").read_text()
