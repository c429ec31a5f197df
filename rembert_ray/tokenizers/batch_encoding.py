"""What a call of a tokenizer returns: named columns, and from each token to its word, text and characters.

The same names and answers as `BatchEncoding` of a fast tokenizer in transformers. It must not tokenize. torch is
imported only when tensors are asked for.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rembert_ray.tokenizers.encoding import Encoding

TensorKind = Literal["np", "pt"]


class CharSpan(NamedTuple):
    """Characters [start, end) of a text (of a word, where the input was words)."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens [start, end) of a row."""

    start: int
    end: int


class BatchEncoding(UserDict[str, Any]):
    """A mapping from column names (`input_ids`, ...) to lists, arrays or tensors, also readable as attributes.

    Methods take the row first and may leave it out for row 0. Tokens of the template and padding belong to no word, no
    text and no characters: None. `word_ids` are indices of the given words; for whole text, of the tokenizer's own
    words. Methods raise `ValueError` on an encoding that `pad` made, which knows ids only.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | None = None,
        names_of: Callable[[list[int]], list[str]] | None = None,
    ) -> None:
        super().__init__(data)
        self._encoding = encoding
        self._names_of = names_of

    def __getattr__(self, name: str) -> Any:
        # `data` is missing while a copy is being unpickled.
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or column {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        # The names would take the whole vocabulary along to a data loader's workers.
        return {**self.__dict__, "_names_of": None}

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move every tensor to a torch device; returns this same object."""
        for name, value in self.data.items():
            if hasattr(value, "to"):
                self.data[name] = value.to(device=device, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, tensor_type: TensorKind | None = None) -> BatchEncoding:
        """Make every column an array or tensor; returns this same object. Raises as `as_tensors`."""
        self.data = as_tensors(self.data, tensor_type)
        return self

    @property
    def is_fast(self) -> bool:
        """Whether words and characters are known. True for what a tokenizer's call returned."""
        return self._encoding is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for single texts, 2 for pairs, None where it is not known."""
        if self._encoding is None or self._encoding.sequence_ids is None:
            return None
        return 1 if self._encoding.type_ids is None else 2

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as strings, the unknown token for what the vocabulary lacks."""
        row = self._row(batch_index)
        if self._names_of is None:
            raise ValueError("tokens() is not there on an encoding that was pickled: use convert_ids_to_tokens")
        return self._names_of(row.ids.tolist())

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row 0 (first text), 1 (second text) or None."""
        return _with_none(self._row(batch_index).sequence_ids)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the index of its word in its text, or None."""
        return _with_none(self._row(batch_index).word_ids)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text a token is of: 0, 1 or None."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        return self.sequence_ids(row)[token]

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word that a token is of, or None."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        return self.word_ids(row)[token]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters of a token, or None."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        if self.sequence_ids(row)[token] is None:
            return None
        return CharSpan(*self._offsets(row)[token].tolist())

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The first token of a row that covers a character of its text; None for white space between tokens."""
        row, char = _row_and_index(batch_or_char_index, char_index)
        offsets = self._offsets(row)
        covers = (offsets[:, 0] <= char) & (char < offsets[:, 1]) & (self._row(row).sequence_ids == sequence_index)
        found = np.flatnonzero(covers)
        return int(found[0]) if len(found) else None

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word, or None when it has none in this row."""
        index, word = _row_and_index(batch_or_word_index, word_index)
        row = self._row(index)
        found = np.flatnonzero((row.word_ids == word) & (row.sequence_ids == sequence_index))
        return TokenSpan(int(found[0]), int(found[-1]) + 1) if len(found) else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word, from its first token to its last, or None when it has none in this row."""
        row, word = _row_and_index(batch_or_word_index, word_index)
        tokens = self.word_to_tokens(row, word, sequence_index)
        if tokens is None:
            return None
        offsets = self._offsets(row)
        return CharSpan(int(offsets[tokens.start, 0]), int(offsets[tokens.end - 1, 1]))

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that covers a character of a text, or None."""
        row, char = _row_and_index(batch_or_char_index, char_index)
        token = self.char_to_token(row, char, sequence_index)
        return None if token is None else self.token_to_word(row, token)

    def _row(self, index: int) -> Encoding:
        if self._encoding is None:
            raise ValueError("this encoding knows ids only: call the tokenizer on the text to have words and offsets")
        return self._encoding.row(index)

    def _offsets(self, index: int) -> NDArray[np.int32]:
        offsets = self._row(index).offsets
        assert offsets is not None, "a call always encodes with offsets"
        return offsets


def as_tensors(columns: Mapping[str, Any], kind: TensorKind | None) -> dict[str, Any]:
    """The columns as numpy arrays ('np') or torch tensors ('pt'); None leaves them.

    Raises `ValueError` for another `kind`, and naming a column whose rows have unequal lengths or are no numbers.
    """
    if kind is None:
        return dict(columns)
    if kind not in ("np", "pt"):
        raise ValueError(f"return_tensors is {kind!r}: give 'np', 'pt' or None")
    return {name: _as_tensor(name, value, kind) for name, value in columns.items()}


def _as_tensor(name: str, value: Any, kind: str) -> Any:
    try:
        if kind == "np":
            array = np.asarray(value)
            if array.dtype == object:
                raise ValueError("not a rectangle of numbers")
            return array.astype(np.int64) if array.size == 0 else array
        import torch

        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        return value if isinstance(value, torch.Tensor) else torch.tensor(value)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"column {name!r} cannot be one tensor ({error}): give padding=True and truncation=True, and leave out "
            "columns that are no numbers or that only you can pad (such as labels of tokens)"
        ) from error


def _with_none(flat: NDArray[np.integer] | None) -> list[int | None]:
    assert flat is not None, "a call always encodes with words"
    return [None if value < 0 else value for value in flat.tolist()]


def _row_and_index(row_or_index: int, index: int | None) -> tuple[int, int]:
    return (0, row_or_index) if index is None else (row_or_index, index)
