"""The ragged result of tokenizing a batch: flat arrays and where each row begins.

It holds arrays and moves tokens between them; it must not know any vocabulary, and it never pads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class Encoding:
    """A batch of n rows with `total` tokens between them.

    - `ids`: int32 [total], the tokens of all rows one after the other.
    - `row_splits`: int64 [n + 1]; row i is `ids[row_splits[i]:row_splits[i + 1]]`.
    - `offsets`: int32 [total, 2], start and end in Unicode characters of the original text (of the row's
      first text, or of its second text where `type_ids` is 1); (0, 0) for the tokens that the template added.
    - `type_ids`: int32 [total], 0 for the first text and 1 for the second; None when no pairs were given.
    - `special_tokens_mask`: bool [total], True for the tokens that the template added. A `[MASK]` that was
      written in the text is the text's own and stays False.
    """

    ids: IntArray
    row_splits: NDArray[np.int64]
    offsets: IntArray | None = None
    type_ids: IntArray | None = None
    special_tokens_mask: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row, int64 [n]."""
        return np.diff(self.row_splits)

    def row(self, index: int) -> Encoding:
        """Row `index` (negative counts from the end) as an `Encoding` of one row; its arrays are views."""
        n_rows = len(self)
        if not -n_rows <= index < n_rows:
            raise IndexError(f"row {index} of an encoding of {n_rows} rows")
        first, last = (int(split) for split in self.row_splits[index % n_rows :][:2])
        part = slice(first, last)
        return Encoding(
            ids=self.ids[part],
            row_splits=np.array([0, last - first], dtype=np.int64),
            offsets=None if self.offsets is None else self.offsets[part],
            type_ids=None if self.type_ids is None else self.type_ids[part],
            special_tokens_mask=None if self.special_tokens_mask is None else self.special_tokens_mask[part],
        )
