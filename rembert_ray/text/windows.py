"""Cutting long documents into overlapping windows that fit the model, and saying which window owns each
token.

Positions are tokens of a document, without special tokens. This file must not see ids or text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


@dataclass(frozen=True)
class Windows:
    """k windows over n documents; those of a document stand together, in order.

    - `row`: int32 [k], the document.
    - `start`, `end`: int32 [k], its tokens that the window holds.
    - `owned_start`, `owned_end`: int32 [k], the tokens whose result is taken from this window. The owned
      ranges of a document are a partition of its tokens.
    """

    row: IntArray
    start: IntArray
    end: IntArray
    owned_start: IntArray
    owned_end: IntArray

    def __len__(self) -> int:
        return len(self.row)


def cut_windows(lengths: NDArray[Any], capacity: int, overlap: int) -> Windows:
    """Windows for documents of `lengths` tokens [n], with at most `capacity` tokens each.

    A document gets the fewest windows in which neighbours share `overlap` tokens; they are equally long, up
    to one token, so that no short tail lacks context. A token belongs to the window in which it is farthest
    from a cut (an edge of the document is no cut), the earlier one if equal. An empty document gets one empty
    window.

    Raises `ValueError` unless 0 <= overlap < capacity.
    """
    if not 0 <= overlap < capacity:
        raise ValueError(f"overlap must be at least 0 and less than the capacity of {capacity}, got {overlap}")
    n_tokens = np.asarray(lengths, dtype=np.int64)
    n_windows = np.where(n_tokens <= capacity, 1, -(-(n_tokens - overlap) // (capacity - overlap)))
    row = np.repeat(np.arange(len(n_tokens)), n_windows)
    first = np.cumsum(n_windows) - n_windows
    position = np.arange(len(row)) - first[row]

    # Shared tokens count once in each window: this many are spread over the windows of a document.
    length, n_longer = np.divmod(n_tokens + (n_windows - 1) * overlap, n_windows)
    start = position * (length - overlap)[row] + np.minimum(position, n_longer[row])
    end = start + length[row] + (position < n_longer[row])

    # Where a token is as far from the earlier window's end as from the later window's start.
    middle = (end[:-1] - 1 + start[1:]) // 2 + 1
    is_first, is_last = position == 0, position == n_windows[row] - 1
    owned_start, owned_end = start.copy(), end.copy()
    owned_start[1:] = np.where(is_first[1:], 0, middle)
    owned_end[:-1] = np.where(is_last[:-1], end[:-1], middle)
    columns = (row, start, end, owned_start, owned_end)
    return Windows(*(column.astype(np.int32) for column in columns))
