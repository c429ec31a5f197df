"""Counted offsets are exactly those that SentencePiece gives when it is asked: any text, any kind of model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.ragged import splits
from rembert_ray.tokenizers import aligned_offsets
from rembert_ray.tokenizers.aligned_offsets import AlignedOffsets
from rembert_ray.tokenizers.characters import Characters
from rembert_ray.tokenizers.model_fields import character_map
from rembert_ray.tokenizers.offsets import asked_offsets

DATA = Path(__file__).parent.parent / "data"
NAUGHTY: list[str] = json.loads((DATA / "blns.json").read_text(encoding="utf-8"))
DEMO = Path(__file__).parent.parent.parent / "demo"
MODELS = {name: (DATA / f"{name}.model").read_bytes() for name in ("test_sentencepiece", "tiny_multilingual_8k")}
PROCESSORS = {name: sentencepiece.SentencePieceProcessor(model_proto=model) for name, model in MODELS.items()}
CHARACTERS = {name: Characters(PROCESSORS[name], character_map(model)) for name, model in MODELS.items()}
OFFSETS = {name: AlignedOffsets(PROCESSORS[name], model, n_threads=1) for name, model in MODELS.items()}
TINY = "tiny_multilingual_8k"
# Letters with marks that are composed or reordered, expansions with and without blanks, blanks of many kinds, '▁'.
ODD = "abe  \t\n\u3000\u200b\u00ad\x01ﬁ½…ﷺ´\u0301\u0323\u0338é日▁ガが\u3099\uff9e한\u1112\u1161\u11abक\u093cড়[]"


def check(texts: list[str], name: str = TINY) -> None:
    processor = PROCESSORS[name]
    rows = [np.array(row, dtype=np.int32) for row in processor.encode(texts)]
    ids = np.concatenate([np.zeros(0, np.int32), *rows])
    blanks = {processor.piece_to_id("▁" * n) for n in range(1, 20)} - {processor.unk_id()}
    expected = asked_offsets(processor, CHARACTERS[name], texts, np.isin(ids, list(blanks)), n_threads=1)
    found = OFFSETS[name].find(texts, ids, splits([len(row) for row in rows]))
    assert found.dtype == np.int32
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("name", list(MODELS))
def test_naughty_strings(name: str) -> None:
    check(NAUGHTY, name)


@pytest.mark.parametrize(
    "file", ["treebanks/treebanks", "corpus/xquad_paragraphs", "corpus/udhr_documents", "corpus/tatoeba_sentences"]
)
def test_real_text_in_many_languages(file: str) -> None:
    check(pq.read_table(DEMO / f"{file}.parquet")["text"].to_pylist())


@pytest.mark.parametrize("name", list(MODELS))
def test_known_unknown_and_empty_texts_side_by_side(name: str) -> None:
    check(["", "a test", "清", "  ", "ﬁne ½", "", "a清b", "the"], name)
    check(["", " "], name)
    check(["▁"], name)
    check([], name)


@given(st.lists(st.text(st.sampled_from(ODD), max_size=15), max_size=4))
def test_any_text(texts: list[str]) -> None:
    check(texts)


@given(st.lists(st.text(max_size=12), max_size=3))
def test_any_characters(texts: list[str]) -> None:
    check([text.encode(errors="ignore").decode() for text in texts])


def test_only_texts_that_are_not_certain_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(processor: Any, characters: Any, texts: list[str], *rest: Any) -> Any:
        asked.extend(texts)
        return asked_offsets(processor, characters, texts, *rest)

    monkeypatch.setattr(aligned_offsets, "asked_offsets", note)
    check(["plain  text ", "ﬁne…  ﬂ…", "\u00e9", "日本\u3000です"])
    assert asked == []
    uncertain = ["e\u0301", "か\u3099", "ﷺ"]
    check(uncertain)
    assert asked == uncertain


@pytest.mark.parametrize(
    ("option", "value"),
    [("remove_extra_whitespaces", False), ("add_dummy_prefix", False), ("treat_whitespace_as_suffix", True)],
)
def test_models_that_treat_blanks_otherwise_are_asked(tmp_path: Path, option: str, value: bool) -> None:
    texts = ["a  b ab", " ba a ", "  ", "b"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 5),
        model_prefix=str(tmp_path / "m"),
        vocab_size=7,
        hard_vocab_limit=False,
        minloglevel=3,
        **{option: value},
    )
    model = (tmp_path / "m.model").read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    mappings = processor.encode(texts, return_type="offset_mapping")
    ids = np.array([i for row in mappings for i in row["ids"]], dtype=np.int32)
    characters = Characters(processor, character_map(model))
    is_blank = np.array([set(processor.id_to_piece(int(i))) == {"▁"} for i in ids])
    expected = asked_offsets(processor, characters, texts, is_blank, n_threads=1)
    found = AlignedOffsets(processor, model, 1).find(texts, ids, splits([len(row["ids"]) for row in mappings]))
    assert found.tolist() == expected.tolist()
