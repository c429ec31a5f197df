"""A BatchEncoding is a mapping, and finds tokens, words and characters from one another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rembert_ray.tokenizers.batch_encoding import BatchEncoding, CharSpan, TokenSpan, as_tensors
from rembert_ray.tokenizers.rembert import RemBertTokenizer

DATA = Path(__file__).parent.parent / "data"
tiny = RemBertTokenizer(DATA / "tiny_multilingual_8k.model")
TEXT, PAIR = "ab [MASK] c", "d eq"
batch = tiny(["a", TEXT], ["b", PAIR], padding=True)
TOKENS = ["[CLS]", "▁ab", "[MASK]", "▁c", "[SEP]", "▁d", "▁e", "q", "[SEP]"]


def test_it_is_a_mapping_with_attributes() -> None:
    encoding = tiny("a")
    assert isinstance(encoding, Mapping)
    assert encoding.input_ids is encoding["input_ids"]
    assert {**encoding} == dict(encoding.items())
    assert encoding.pop("token_type_ids") == [0, 0, 0]
    assert list(encoding) == ["input_ids", "attention_mask"]
    assert copy.deepcopy(encoding) == encoding
    with pytest.raises(AttributeError, match="no attribute or column 'labels'"):
        _ = encoding.labels


def test_tokens_texts_and_words() -> None:
    assert batch.tokens(1) == TOKENS
    assert batch.tokens(0)[-1] == "<pad>"
    assert batch.sequence_ids(1) == [None, 0, 0, 0, None, 1, 1, 1, None]
    assert batch.word_ids(1) == [None, 0, 1, 2, None, 0, 1, 1, None]
    assert batch.word_ids(-1) == batch.word_ids(1)
    assert (batch.n_sequences, tiny("a").n_sequences, batch.is_fast) == (2, 1, True)
    with pytest.raises(IndexError):
        batch.word_ids(2)


def test_from_tokens() -> None:
    assert [batch.token_to_sequence(1, i) for i in (0, 1, 5)] == [None, 0, 1]
    assert [batch.token_to_word(1, i) for i in (0, 3, 7, -2)] == [None, 2, 1, 1]
    assert batch.token_to_chars(1, 0) is None
    assert batch.token_to_chars(1, 2) == CharSpan(3, 9)
    assert tiny(TEXT).token_to_chars(1) == (0, 2)


def test_from_characters_and_words() -> None:
    assert [batch.char_to_token(1, i) for i in (0, 1, 2, 3, 8, 10, 11)] == [1, 1, None, 2, 2, 3, None]
    assert batch.char_to_token(1, 3, sequence_index=1) == 7
    assert batch.word_to_tokens(1, 1, sequence_index=1) == TokenSpan(6, 8)
    assert batch.word_to_tokens(1, 9) is None
    assert batch.word_to_chars(1, 1, sequence_index=1) == CharSpan(2, 4)
    assert batch.word_to_chars(1, 9) is None
    assert (batch.char_to_word(1, 3, sequence_index=1), batch.char_to_word(1, 2)) == (1, None)


def test_padding_on_the_left_moves_everything() -> None:
    left = tiny(["a", TEXT], padding=True, padding_side="left")
    assert left.char_to_token(0, 0) == len(left["input_ids"][0]) - 2
    assert left.word_ids(0)[-3:] == [None, 0, None]


def test_an_encoding_without_text_says_so() -> None:
    bare = BatchEncoding({"input_ids": [1]})
    assert (bare.is_fast, bare.n_sequences) == (False, None)
    with pytest.raises(ValueError, match="knows ids only"):
        bare.word_ids()


def test_to_moves_tensors_and_leaves_the_rest() -> None:
    torch = pytest.importorskip("torch")
    encoding = tiny("a", return_tensors="pt")
    encoding["note"] = "kept"
    assert encoding.to("cpu") is encoding
    assert encoding.to(torch.device("cpu")).input_ids.device.type == "cpu"
    assert encoding.note == "kept"


def test_conversion_to_tensors() -> None:
    encoding = tiny("a b").convert_to_tensors("np")
    assert isinstance(encoding.input_ids, np.ndarray)
    with pytest.raises(ValueError, match="column 'labels' cannot be one tensor"):
        as_tensors({"labels": [[1], [1, 2]]}, "np")
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="column 'text' cannot be one tensor"):
        as_tensors({"text": ["a"]}, "pt")
