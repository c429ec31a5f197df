"""Calling a tokenizer gives the columns, shapes and errors of transformers, and what the task guides do works."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.tokenizers.rembert import RemBertTokenizer

DATA = Path(__file__).parent.parent / "data"
tiny = RemBertTokenizer(DATA / "tiny_multilingual_8k.model")
CLS, SEP, PAD = tiny.cls_token_id, tiny.sep_token_id, tiny.pad_token_id
A, B, C, D, E = (tiny.encode(letter, add_special_tokens=False)[0] for letter in "abcde")


# -- columns and shapes -------------------------------------------------------------------------------------


def test_one_text_gives_flat_lists() -> None:
    result = tiny("a b", return_offsets_mapping=True, return_special_tokens_mask=True, return_length=True)
    assert dict(result) == {
        "input_ids": [CLS, A, B, SEP],
        "token_type_ids": [0, 0, 0, 0],
        "attention_mask": [1, 1, 1, 1],
        "special_tokens_mask": [1, 0, 0, 1],
        "offset_mapping": [(0, 0), (0, 1), (2, 3), (0, 0)],
        "length": 4,
    }


def test_columns_can_be_left_out() -> None:
    assert list(tiny("a", return_token_type_ids=False, return_attention_mask=False)) == ["input_ids"]


def test_several_texts_give_rows() -> None:
    assert tiny(["a", "b c"])["input_ids"] == [[CLS, A, SEP], [CLS, B, C, SEP]]
    assert tiny([])["input_ids"] == []
    assert tiny(np.array(["a"]))["input_ids"] == [[CLS, A, SEP]]


@pytest.mark.parametrize("pairs", [(["a", "b"], ["c", "d e"]), ([["a", "c"], ("b", "d e")], None)])
def test_pairs_in_two_lists_or_in_one(pairs: Any) -> None:
    result = tiny(*pairs)
    assert result["input_ids"] == [[CLS, A, SEP, C, SEP], [CLS, B, SEP, D, E, SEP]]
    assert result["token_type_ids"] == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]


def test_an_empty_second_text_is_a_pair() -> None:
    assert tiny("a", "")["input_ids"] == [CLS, A, SEP, SEP]


def test_without_special_tokens() -> None:
    result = tiny("a", "b", add_special_tokens=False, return_special_tokens_mask=True)
    assert (result["input_ids"], result["token_type_ids"], result["special_tokens_mask"]) == ([A, B], [0, 1], [0, 0])


def test_words_are_tokenized_one_by_one() -> None:
    one = tiny(["a", "bc", "", "[MASK]"], is_split_into_words=True, return_offsets_mapping=True)
    assert tiny.convert_ids_to_tokens(one["input_ids"]) == ["[CLS]", "▁a", "▁b", "c", "[MASK]", "[SEP]"]
    assert one.word_ids() == [None, 0, 1, 1, 3, None]
    assert one["offset_mapping"] == [(0, 0), (0, 1), (0, 1), (1, 2), (0, 6), (0, 0)]
    many = tiny([["a"], [], ["b", "c"]], [["d"], ["e"], []], is_split_into_words=True)
    assert many["input_ids"] == [[CLS, A, SEP, D, SEP], [CLS, SEP, E, SEP], [CLS, B, C, SEP, SEP]]
    assert [many.word_ids(i) for i in range(3)] == [
        [None, 0, None, 0, None],
        [None, None, 0, None],
        [None, 0, 1, None, None],
    ]
    assert tiny([[["a"], ["b", "c"]]], is_split_into_words=True)["input_ids"] == [[CLS, A, SEP, B, C, SEP]]


def test_words_of_whole_text_begin_at_white_space() -> None:
    assert tiny("Hello w [MASK]x").word_ids() == [None, 0, 0, 0, 1, 2, 3, None]


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(kind: str) -> None:
    if kind == "pt":
        pytest.importorskip("torch")
    one = tiny("a", return_tensors=kind, return_offsets_mapping=True, return_length=True)  # type: ignore[arg-type]
    assert str(one["input_ids"].dtype).endswith("int64")
    assert tuple(one["input_ids"].shape) == (1, 3)
    assert tuple(one["offset_mapping"].shape) == (1, 3, 2)
    assert one["length"].tolist() == [3]
    many = tiny(["a", "b c"], padding=True, return_tensors=kind)  # type: ignore[arg-type]
    assert many.input_ids.tolist() == [[CLS, A, SEP, PAD], [CLS, B, C, SEP]]
    assert tiny.encode("a", return_tensors=kind).tolist() == [[CLS, A, SEP]]
    assert tuple(tiny([], return_tensors=kind)["input_ids"].shape) == (0, 0)  # type: ignore[arg-type]


# -- padding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"padding": True}, [[CLS, A, SEP, PAD], [CLS, B, C, SEP]]),
        ({"padding": "longest", "padding_side": "left"}, [[PAD, CLS, A, SEP], [CLS, B, C, SEP]]),
        ({"padding": "max_length", "max_length": 5}, [[CLS, A, SEP, PAD, PAD], [CLS, B, C, SEP, PAD]]),
        ({"padding": "max_length", "max_length": 3}, [[CLS, A, SEP], [CLS, B, C, SEP]]),
        ({"padding": True, "pad_to_multiple_of": 3}, [[CLS, A, SEP] + [PAD] * 3, [CLS, B, C, SEP] + [PAD] * 2]),
        ({"padding": "do_not_pad", "pad_to_multiple_of": 3}, [[CLS, A, SEP], [CLS, B, C, SEP]]),
    ],
)
def test_padding(options: dict[str, Any], rows: list[list[int]]) -> None:
    assert tiny(["a", "b c"], **options)["input_ids"] == rows


def test_every_column_is_padded() -> None:
    result = tiny(
        ["a", "b c"], ["d", "e"], padding=True, padding_side="left", return_special_tokens_mask=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert result["attention_mask"][0] == [0, 1, 1, 1, 1, 1]
    assert result["token_type_ids"][0] == [0, 0, 0, 0, 1, 1]
    assert result["special_tokens_mask"][0] == [1, 1, 0, 1, 0, 1]
    assert result["offset_mapping"][0][:3] == [(0, 0), (0, 0), (0, 1)]
    assert result.word_ids(0) == [None, None, 0, None, 0, None]
    assert result.sequence_ids(0) == [None, None, 0, None, 1, None]


def test_the_tokenizers_own_sides() -> None:
    tokenizer = RemBertTokenizer(
        DATA / "tiny_multilingual_8k.model", padding_side="left", truncation_side="left", model_max_length=4
    )
    assert tokenizer(["a", "a b c"], padding=True, truncation=True)["input_ids"] == [
        [PAD, CLS, A, SEP],
        [CLS, B, C, SEP],
    ]
    with pytest.raises(ValueError, match="'left' or 'right'"):
        tokenizer("a", padding_side="up")  # type: ignore[arg-type]


# -- truncation and overflow --------------------------------------------------------------------------------


def test_overflow_of_one_text() -> None:
    result = tiny(["a b c d e", "a"], truncation=True, max_length=5, stride=1, return_overflowing_tokens=True)
    assert result["input_ids"] == [[CLS, A, B, C, SEP], [CLS, C, D, E, SEP], [CLS, A, SEP]]
    assert result["overflow_to_sample_mapping"] == [0, 0, 1]
    alone = tiny("a b c d", truncation=True, max_length=5, stride=2, return_overflowing_tokens=True)
    assert alone["input_ids"] == [[CLS, A, B, C, SEP], [CLS, B, C, D, SEP]]


def test_overflow_of_the_second_text_as_for_question_answering() -> None:
    question, context = "a b", "c d e a b c d e"
    result = tiny(
        [question], [context], truncation="only_second", max_length=8, stride=1, padding="max_length",
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    assert result["overflow_to_sample_mapping"] == [0, 0, 0, 0]
    covered: set[int] = set()
    for i in range(4):
        assert result["input_ids"][i][:4] == [CLS, A, B, SEP]
        in_context = [s == 1 for s in result.sequence_ids(i)]
        spans = [o for o, inside in zip(result["offset_mapping"][i], in_context, strict=True) if inside]
        assert [context[start:end] for start, end in spans] == context[spans[0][0] : spans[-1][1]].split()
        covered |= {start for start, _ in spans}
    assert covered == set(range(0, len(context), 2))


def test_truncation_from_the_left_keeps_the_end() -> None:
    tokenizer = RemBertTokenizer(DATA / "tiny_multilingual_8k.model", truncation_side="left")
    result = tokenizer(
        "a b c d e", truncation=True, max_length=4, return_overflowing_tokens=True, add_special_tokens=True
    )
    assert result["input_ids"] == [[CLS, D, E, SEP], [CLS, B, C, SEP], [CLS, A, SEP]]


def test_max_length_alone_truncates_and_says_so() -> None:
    with pytest.warns(UserWarning, match="truncation=True or False"):
        assert tiny("a b c", max_length=4)["input_ids"] == [CLS, A, B, SEP]
    assert len(tiny("a b c", max_length=4, truncation=False)["input_ids"]) == 5


def test_a_row_that_the_model_cannot_take_is_warned_of() -> None:
    short = RemBertTokenizer(DATA / "tiny_multilingual_8k.model", model_max_length=4)
    with pytest.warns(UserWarning, match=r"5 tokens .* takes 4"):
        short("a b c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(short("a b c", truncation=True)["input_ids"]) == 4


def test_what_has_no_length_to_go_by_is_switched_off_and_warned_of() -> None:
    with pytest.warns(UserWarning, match="nothing is truncated"):
        assert len(tiny("a b", truncation=True)["input_ids"]) == 4
    with pytest.warns(UserWarning, match="nothing is padded"):
        assert len(tiny("a b", padding="max_length")["input_ids"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": True, "max_length": 1}, "special tokens alone are 2"),
        ({"truncation": "only_second", "max_length": 3}, "give text_pair"),
        ({"truncation": "shortest"}, "truncation is 'shortest'"),
        ({"padding": "most"}, "padding is 'most'"),
        ({"padding": True, "truncation": True, "max_length": 5, "pad_to_multiple_of": 4}, "no multiple"),
        ({"return_tensors": "tf"}, "'np', 'pt' or None"),
        ({"truncation": True, "max_length": 3, "stride": 1, "return_overflowing_tokens": True}, "smaller stride"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny("a b c", **options)


def test_rows_of_unequal_length_are_no_tensor() -> None:
    with pytest.raises(ValueError, match=r"3 to 4 tokens.*padding=True"):
        tiny(["a", "a b"], return_tensors="np")


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 25))
def test_longest_first_takes_one_token_at_a_time(first: int, second: int, room: int) -> None:
    result = tiny(["a " * first], ["b " * second], truncation=True, max_length=room + 3)
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    assert result["token_type_ids"] == [[0] * (first + 2) + [1] * (second + 1)]


# -- what it returns ----------------------------------------------------------------------------------------


def test_it_pickles_without_the_vocabulary() -> None:
    result = tiny(["a b"])
    packed = pickle.dumps(result)
    assert len(packed) < 2000
    copy = pickle.loads(packed)
    assert dict(copy) == dict(result)
    assert copy.word_ids() == result.word_ids()
    with pytest.raises(ValueError, match="convert_ids_to_tokens"):
        copy.tokens()
