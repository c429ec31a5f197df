"""Putting the special tokens of the sequence template around token ids.

The template of an architecture is data: `[CLS] A [SEP] B [SEP]` for BERT and RemBERT, `<s> A </s></s> B </s>` for
RoBERTa. Works on whole ragged batches at once; it must not look at texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.encoding import Encoding, IntArray


@dataclass(frozen=True)
class Template:
    """`opening A closing`, or with a second text `opening A between B closing`; all are ids.

    `second_type_id` is the type id of B and of the `closing` behind it, everything else has 0.
    """

    opening: tuple[int, ...]
    between: tuple[int, ...]
    closing: tuple[int, ...]
    second_type_id: int

    @property
    def bare(self) -> Template:
        """The same without special tokens: what `add_special_tokens=False` means. Type ids still tell a pair apart."""
        return Template((), (), (), self.second_type_id)

    def size(self, *, has_pair: bool) -> int:
        """Tokens that the template adds to a row of one text, or of two."""
        return len(self.opening) + len(self.closing) + (len(self.between) if has_pair else 0)

    def join(self, first: Sequence[int], second: Sequence[int] | None = None) -> list[int]:
        """The ids of one row."""
        pair = [] if second is None else [*self.between, *second]
        return [*self.opening, *first, *pair, *self.closing]

    def type_ids(self, n_first: int, n_second: int | None = None) -> list[int]:
        """The type ids of one row with texts of so many tokens."""
        before = len(self.opening) + n_first
        if n_second is None:
            return [0] * (before + len(self.closing))
        return [0] * (before + len(self.between)) + [self.second_type_id] * (n_second + len(self.closing))

    def is_added(self, n_first: int, n_second: int | None = None) -> list[int]:
        """1 for the template's tokens and 0 for those of the texts, of one row."""
        opening, between, closing = ([1] * len(part) for part in (self.opening, self.between, self.closing))
        pair = [] if n_second is None else between + [0] * n_second
        return opening + [0] * n_first + pair + closing

    def apply(self, first: Encoding, second: Encoding | None) -> Encoding:
        """Rows of `first`, each followed by its row of `second` if given, with the template's tokens around them.

        `type_ids` are set when there is a second text.
        """
        if second is None and not self.size(has_pair=False):
            return replace(first, sequence_ids=np.zeros(len(first.ids), dtype=np.int8))
        n_first = first.lengths
        n_second = np.zeros_like(n_first) if second is None else second.lengths
        row_splits = splits(n_first + n_second + self.size(has_pair=second is not None))
        first_starts = row_splits[:-1] + len(self.opening)
        placed = [(ragged_arange(first_starts, n_first), first)]
        fillings = [(row_splits[:-1], self.opening), (row_splits[1:] - len(self.closing), self.closing)]
        if second is not None:
            fillings.append((first_starts + n_first, self.between))
            second_starts = first_starts + n_first + len(self.between)
            placed.append((ragged_arange(second_starts, n_second), second))

        total = int(row_splits[-1])
        ids = np.zeros(total, dtype=np.int32)
        sequence_ids = np.full(total, -1, dtype=np.int8)
        for number, (index, text) in enumerate(placed):
            ids[index] = text.ids
            sequence_ids[index] = number
        for starts, tokens in fillings:
            for step, token_id in enumerate(tokens):
                ids[starts + step] = token_id

        type_ids: IntArray | None = None
        if second is not None:
            type_ids = np.zeros(total, dtype=np.int32)
            type_ids[ragged_arange(second_starts, n_second + len(self.closing))] = self.second_type_id
        offsets = _place([(index, text.offsets) for index, text in placed], (total, 2), 0)
        word_ids = _place([(index, text.word_ids) for index, text in placed], (total,), -1)
        return Encoding(ids, row_splits, offsets, type_ids, sequence_ids, word_ids)


def _place(
    parts: list[tuple[NDArray[np.int64], IntArray | None]], shape: tuple[int, ...], filler: int
) -> IntArray | None:
    """An array of `filler` with the values of each part at its index; None when a part has no values."""
    placed = np.full(shape, filler, dtype=np.int32)
    for index, values in parts:
        if values is None:
            return None
        placed[index] = values
    return placed
