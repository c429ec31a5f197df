"""The shipped demo model is as good as the README says, measured again on the held-back sentences."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import sentencepiece

from rembert_ray.models.rembert import RemBertForTokenClassification

REPOSITORY = Path(__file__).parent.parent
DEMO = REPOSITORY / "demo"
MAX_DEMO_BYTES = 13_000_000


@pytest.fixture(scope="module")
def train():
    spec = importlib.util.spec_from_file_location("demo_train", DEMO / "train.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_accuracy_on_held_back_sentences_is_what_is_written_down(train):
    written = json.loads((DEMO / "model" / "accuracy.json").read_text())
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(DEMO / "model" / "sentencepiece.model"))
    model = RemBertForTokenClassification.from_pretrained(str(DEMO / "model"))
    found = train.evaluate(model, vocabulary, train.read_treebanks(DEMO)["heldout"])
    assert found == pytest.approx(written, abs=0.003)
    readme = (REPOSITORY / "README.md").read_text()
    assert all(f"{share:.1%}" in readme for share in written.values())


def test_no_held_back_sentence_is_in_what_the_model_was_trained_on(train):
    splits = train.read_treebanks(DEMO)
    heldout = {sentence.text for sentence in splits["heldout"]}
    assert len(heldout) > 500
    assert not heldout & {sentence.text for sentence in splits["train"]}
    languages = {sentence.language for sentence in splits["train"]}
    assert not heldout & set(train.read_unlabelled(DEMO, languages))


def test_the_demo_stays_small():
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= MAX_DEMO_BYTES
