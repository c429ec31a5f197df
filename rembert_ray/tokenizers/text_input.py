"""The forms in which Hugging Face's tokenizers take text: one or many, alone or in pairs, whole or as words.

It sorts them into two lists; it must not tokenize.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Text = str | list[str]
"""A text, or its words."""


@dataclass(frozen=True)
class TextInput:
    """n texts, and n second texts if they are pairs. `is_batch` False: one was given alone, not in a list."""

    first: list[Any]
    second: list[Any] | None
    is_batch: bool


def read_input(text: Any, text_pair: Any, is_split_into_words: bool) -> TextInput:
    """Sort out the `text` and `text_pair` of a call.

    - A text is a `str`, or with `is_split_into_words` a list of `str`; many are a list (or any other sequence) of it.
    - Pairs are two lists of equal length, or as `text` alone a list of (first, second).

    Raises `TypeError` and `ValueError` saying which row is wrong.
    """
    if _is_text(text, is_split_into_words):
        if text_pair is not None and not _is_text(text_pair, is_split_into_words):
            raise TypeError(f"text is one text, so text_pair must be one too, not {type(text_pair).__name__}")
        second = None if text_pair is None else [_plain(text_pair)]
        return TextInput([_plain(text)], second, is_batch=False)
    rows = _rows(text, "text", is_split_into_words)
    if text_pair is None:
        if rows and all(_is_pair(row, is_split_into_words) for row in rows):
            firsts, seconds = zip(*rows, strict=True)
            return TextInput(list(map(_plain, firsts)), list(map(_plain, seconds)), is_batch=True)
        return TextInput(_checked(rows, "text", is_split_into_words), None, is_batch=True)
    pairs = _rows(text_pair, "text_pair", is_split_into_words)
    if len(pairs) != len(rows):
        raise ValueError(f"{len(rows)} texts but {len(pairs)} pairs: give one second text for each first")
    return TextInput(
        _checked(rows, "text", is_split_into_words), _checked(pairs, "text_pair", is_split_into_words), is_batch=True
    )


def _is_text(value: Any, is_split_into_words: bool) -> bool:
    if not is_split_into_words:
        return isinstance(value, str)
    return isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)


def _is_pair(value: Any, is_split_into_words: bool) -> bool:
    is_two = isinstance(value, list | tuple) and len(value) == 2
    return is_two and all(_is_text(text, is_split_into_words) for text in value)


def _plain(text: Any) -> Text:
    return text if isinstance(text, str) else list(text)


def _rows(value: Any, name: str, is_split_into_words: bool) -> list[Any]:
    expected = "a list of words, or a list of such lists" if is_split_into_words else "a str or a list of str"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {type(value).__name__}, not {expected}")
    return list(value)


def _checked(rows: list[Any], name: str, is_split_into_words: bool) -> list[Text]:
    for index, row in enumerate(rows):
        if not _is_text(row, is_split_into_words):
            expected = "a list of str" if is_split_into_words else "a str (words need is_split_into_words=True)"
            raise TypeError(f"{name} {index} is {type(row).__name__}, not {expected}")
    return list(map(_plain, rows))


def check_texts(texts: Sequence[str]) -> None:
    """Raise `TypeError` for what is no `str` and `ValueError` for a lone surrogate, naming the text's index."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} is {type(text).__name__}, not str")
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ValueError(
                f"text {index} is not valid Unicode: lone surrogate U+{code:04X} at character {error.start}"
            ) from error
