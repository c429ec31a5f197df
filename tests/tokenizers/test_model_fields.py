"""Fields of a model's file: of real models, of one that says otherwise, and of what is no model."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from rembert_ray.tokenizers.model_fields import UNIGRAM, adds_dummy_prefix, character_map, model_type

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("name", ["test_sentencepiece", "tiny_multilingual_8k"])
def test_rembert_models(name: str) -> None:
    model = (DATA / f"{name}.model").read_bytes()
    assert model_type(model) == UNIGRAM
    assert adds_dummy_prefix(model)
    size = int.from_bytes(character_map(model)[:4], "little")
    assert 0 < size < len(character_map(model))


def test_what_a_model_says_otherwise(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b ab ba abab"] * 5),
        model_prefix=str(tmp_path / "m"),
        model_type="bpe",
        vocab_size=7,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        minloglevel=3,
    )
    model = (tmp_path / "m.model").read_bytes()
    assert model_type(model) != UNIGRAM
    assert not adds_dummy_prefix(model)
    assert character_map(model) == b""


@pytest.mark.parametrize("content", [b"\x0b", b"\x12", b"\x80"])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        model_type(content)
