"""The ragged result of tokenizing a batch: flat arrays and where each row begins.

It holds arrays and moves tokens between them; it must not know any vocabulary, and it never pads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits

IntArray = NDArray[np.int32]
Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Encoding:
    """A batch of n rows with `total` tokens between them.

    - `ids`: int32 [total], the tokens of all rows one after the other.
    - `row_splits`: int64 [n + 1]; row i is `ids[row_splits[i]:row_splits[i + 1]]`.
    - `offsets`: int32 [total, 2], start and end in Unicode characters of the original text (of the row's first
      text, or of its second where `sequence_ids` is 1; of the word, where texts were given as words); (0, 0) for
      the tokens that the template added.
    - `type_ids`: int32 [total], the template's segment of each token; None when no pairs were given.
    - `sequence_ids`: int8 [total], 0 for the first text, 1 for the second, -1 for the tokens that the template
      added. A `[MASK]` that was written in the text is the text's own. None before the template is applied.
    - `word_ids`: int32 [total], index of the token's word in its text, -1 for the tokens that the template added.
    """

    ids: IntArray
    row_splits: NDArray[np.int64]
    offsets: IntArray | None = None
    type_ids: IntArray | None = None
    sequence_ids: NDArray[np.int8] | None = None
    word_ids: IntArray | None = None

    def __len__(self) -> int:
        return len(self.row_splits) - 1

    @property
    def lengths(self) -> Lengths:
        """Tokens per row, int64 [n]."""
        return np.diff(self.row_splits)

    @property
    def special_tokens_mask(self) -> NDArray[np.bool_] | None:
        """bool [total], True for the tokens that the template added; None before it is applied."""
        return None if self.sequence_ids is None else self.sequence_ids < 0

    def row(self, index: int) -> Encoding:
        """Row `index` (negative counts from the end) as an `Encoding` of one row; its arrays are views."""
        n_rows = len(self)
        if not -n_rows <= index < n_rows:
            raise IndexError(f"row {index} of an encoding of {n_rows} rows")
        first, last = (int(split) for split in self.row_splits[index % n_rows :][:2])
        return self._pick(slice(first, last), np.array([0, last - first], dtype=np.int64))

    def windows(self, rows: Lengths, starts: Lengths, lengths: Lengths) -> Encoding:
        """An `Encoding` of m rows: row j is `lengths[j]` tokens of row `rows[j]`, from its token `starts[j]` on.

        The three are int64 [m]; a row may be taken several times.
        """
        return self._pick(ragged_arange(self.row_splits[:-1][rows] + starts, lengths), splits(lengths))

    def _pick(self, tokens: slice | NDArray[np.int64], row_splits: NDArray[np.int64]) -> Encoding:
        flat: dict[str, Any] = {name: values for name, values in vars(self).items() if values is not None}
        picked = {name: values[tokens] for name, values in flat.items() if name != "row_splits"}
        return Encoding(row_splits=row_splits, **picked)
