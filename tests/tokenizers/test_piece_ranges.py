"""The quick way to a piece's characters gives exactly SentencePiece's own answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.piece_ranges import PieceRanges

DATA = Path(__file__).parent.parent / "data"
NAUGHTY: list[str] = json.loads((DATA / "blns.json").read_text(encoding="utf-8"))
DEMO = Path(__file__).parent.parent.parent / "demo"
PROCESSORS = {
    name: sentencepiece.SentencePieceProcessor(model_file=str(DATA / f"{name}.model"))
    for name in ("test_sentencepiece", "tiny_multilingual_8k")
}


def check(name: str, texts: list[str]) -> None:
    processor = PROCESSORS[name]
    expected = processor.encode(texts, return_type="offset_mapping")
    ids = np.array([i for row in expected for i in row["ids"]], dtype=np.int32)
    row_splits = splits([len(row["ids"]) for row in expected])
    ranges = PieceRanges(processor, n_threads=1).find(texts, ids, row_splits)
    assert ranges.tolist() == [list(pair) for row in expected for pair in row["offsets"]]


@pytest.mark.parametrize("name", list(PROCESSORS))
def test_naughty_strings(name: str) -> None:
    check(name, NAUGHTY)


@pytest.mark.parametrize(
    "file", ["treebanks/treebanks", "corpus/xquad_paragraphs", "corpus/udhr_documents", "corpus/tatoeba_sentences"]
)
def test_real_text_in_many_languages(file: str) -> None:
    check("tiny_multilingual_8k", pq.read_table(DEMO / f"{file}.parquet")["text"].to_pylist())


@pytest.mark.parametrize("name", list(PROCESSORS))
def test_known_unknown_and_empty_texts_side_by_side(name: str) -> None:
    check(name, ["", "a test", "清", "  ", "ﬁne ½", "", "a清b", "the"])
    check(name, ["", " "])
    check(name, [])


@given(st.lists(st.text(st.sampled_from("abe  \n\u3000\u200bﬁ½ﷺ\u0301é日▁ガ"), max_size=15), max_size=4))
def test_any_text(texts: list[str]) -> None:
    check("tiny_multilingual_8k", texts)
