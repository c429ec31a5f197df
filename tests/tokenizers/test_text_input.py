"""Every documented form of input is understood, and everything else is refused with the row that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from rembert_ray.tokenizers.text_input import TextInput, check_texts, read_input


@pytest.mark.parametrize(
    ("text", "pair", "words", "expected"),
    [
        ("a", None, False, TextInput(["a"], None, False)),
        ("a", "b", False, TextInput(["a"], ["b"], False)),
        (["a", "b"], None, False, TextInput(["a", "b"], None, True)),
        (("a",), ("b",), False, TextInput(["a"], ["b"], True)),
        ([("a", "b"), ["c", "d"]], None, False, TextInput(["a", "c"], ["b", "d"], True)),
        ([], None, False, TextInput([], None, True)),
        ((text for text in "ab"), None, False, TextInput(["a", "b"], None, True)),
        (["a", "b"], None, True, TextInput([["a", "b"]], None, False)),
        (["a"], ["b"], True, TextInput([["a"]], [["b"]], False)),
        ([["a"], []], None, True, TextInput([["a"], []], None, True)),
        ([["a"]], [["b"]], True, TextInput([["a"]], [["b"]], True)),
        ([(["a"], ["b"])], None, True, TextInput([["a"]], [["b"]], True)),
        ([], None, True, TextInput([[]], None, False)),
    ],
)
def test_forms(text: Any, pair: Any, words: bool, expected: TextInput) -> None:
    assert read_input(text, pair, words) == expected


@pytest.mark.parametrize(
    ("text", "pair", "words", "message"),
    [
        (None, None, False, "text is NoneType, not a str or a list of str"),
        (["a", None], None, False, "text 1 is NoneType"),
        ([["a", "b", "c"]], None, False, "text 0 is list, not a str .words need is_split_into_words=True"),
        ("a", ["b"], False, "text is one text, so text_pair must be one too, not list"),
        (["a"], "b", False, "text_pair is str"),
        (["a"], [3], False, "text_pair 0 is int"),
        ("a", None, True, "text is str, not a list of words"),
        ([["a"], "b"], None, True, "text 1 is str, not a list of str"),
        ([["a", 1]], None, True, "text 0 is list, not a list of str"),
    ],
)
def test_refusals(text: Any, pair: Any, words: bool, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_input(text, pair, words)


def test_unequal_numbers() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 pairs"):
        read_input(["a", "b"], ["c"], False)


def test_bad_texts_are_named() -> None:
    check_texts(["a", "é"])
    with pytest.raises(TypeError, match="text 1 is bytes"):
        check_texts(["a", b"b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"text 0 .* U\+D800 at character 1"):
        check_texts(["é\ud800"])
