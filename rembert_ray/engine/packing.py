"""Which windows share a forward pass, and the flat arrays of one pass. numpy only; no torch, no padding.

A batch is a number of tokens. Windows are taken longest first, so that neighbours have equal lengths (one dense
attention call each on CPU) and the largest memory use comes first; batches are of even size, because a small last
batch runs at a fraction of the speed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits

Int = NDArray[np.int32]
Long = NDArray[np.int64]


@dataclass(frozen=True)
class WindowTable:
    """All windows of a shard, ragged.

    ids: int32 `[tokens]`, special tokens included, window after window.
    starts: int64 `[windows + 1]`, where each window begins in `ids`.
    second_starts: int32 `[windows]`, the position within a window from which its tokens are of segment 1; the window's
        length where all are of segment 0.
    kept: int32 `[kept]`, the positions within their windows of the tokens that the task reads, window after window.
    kept_splits: int64 `[windows + 1]`, where the kept tokens of each window begin in `kept`.
    """

    ids: Int
    starts: Long
    second_starts: Int
    kept: Int
    kept_splits: Long

    @classmethod
    def from_ranges(
        cls,
        ids: NDArray[np.integer],
        starts: Long,
        kept_starts: NDArray[np.integer],
        kept_ends: NDArray[np.integer],
        second_starts: NDArray[np.integer] | None = None,
    ) -> WindowTable:
        """Windows of which the task reads positions `kept_starts` to `kept_ends`, int `[windows]`."""
        n_kept = np.asarray(kept_ends, np.int64) - kept_starts
        kept = ragged_arange(np.asarray(kept_starts, np.int64), n_kept).astype(np.int32)
        second = np.diff(starts) if second_starts is None else second_starts
        return cls(ids.astype(np.int32), starts, second.astype(np.int32), kept, splits(n_kept))

    def __len__(self) -> int:
        return len(self.second_starts)

    @property
    def lengths(self) -> Long:
        """Tokens of each window, special tokens included."""
        return np.diff(self.starts)

    def take(self, windows: Long) -> WindowTable:
        """These windows, in this order."""
        lengths, n_kept = self.lengths[windows], np.diff(self.kept_splits)[windows]
        tokens = ragged_arange(self.starts[:-1][windows], lengths)
        kept = ragged_arange(self.kept_splits[:-1][windows], n_kept)
        return WindowTable(
            self.ids[tokens], splits(lengths), self.second_starts[windows], self.kept[kept], splits(n_kept)
        )


@dataclass(frozen=True)
class PackedBatch:
    """One forward pass, flat.

    windows: int64 `[windows]`, indices into the shard's `WindowTable`, longest first.
    ids: int64 `[tokens]`.
    token_type_ids: int64 `[tokens]`, or None where all are 0.
    lengths: tokens of each window.
    kept: int64 `[kept]`, flat indices of the tokens that the task reads, window after window.
    kept_lengths: int64 `[windows]`, how many of them each window has.
    """

    windows: Long
    ids: Long
    token_type_ids: Long | None
    lengths: Long
    kept: Long
    kept_lengths: Long

    @property
    def n_tokens(self) -> int:
        """Tokens of this pass; all of them are text or special tokens."""
        return len(self.ids)


def pack(lengths: NDArray[np.integer], batch_tokens: int) -> list[Long]:
    """Group windows into batches of at most `batch_tokens` tokens, longest first, evenly filled.

    A window that is longer than the budget gets a batch of its own.

    Args:
        lengths: tokens of each window, at least 1.
        batch_tokens: the budget.

    Returns:
        Indices of windows, one array a batch; every window is in exactly one.

    Raises:
        ValueError: the budget is not positive, or a window is empty.
    """
    if batch_tokens < 1:
        raise ValueError(f"a batch of {batch_tokens} tokens holds nothing")
    if len(lengths) == 0:
        return []
    if int(lengths.min()) < 1:
        raise ValueError("a window without tokens cannot be packed")
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    sorted_lengths = np.asarray(lengths, np.int64)[order]
    starts = splits(sorted_lengths)
    n_batches = -(-int(starts[-1]) // batch_tokens)
    while True:
        bounds = _even_bounds(starts, n_batches)
        sizes = starts[bounds[1:]] - starts[bounds[:-1]]
        too_large = (sizes > batch_tokens) & (np.diff(bounds) > 1)
        if not too_large.any():
            return [order[a:b] for a, b in itertools.pairwise(bounds)]
        n_batches += 1


def _even_bounds(starts: Long, n_batches: int) -> Long:
    """Bounds between windows that are nearest to equal shares of the tokens; empty batches dropped."""
    shares = starts[-1] * np.arange(1, n_batches, dtype=np.int64) // n_batches
    above = np.searchsorted(starts, shares)
    nearest = np.where(starts[above] - shares < shares - starts[above - 1], above, above - 1)
    return np.unique(np.concatenate([[0], nearest, [len(starts) - 1]]))


def build_batch(table: WindowTable, windows: Long) -> PackedBatch:
    """The flat arrays of one forward pass over these windows."""
    part = table.take(windows)
    lengths, first, kept_lengths = part.lengths, part.starts[:-1], np.diff(part.kept_splits)
    token_type_ids = None
    if (part.second_starts < lengths).any():
        position = ragged_arange(np.zeros_like(lengths), lengths)
        token_type_ids = (position >= np.repeat(part.second_starts, lengths)).astype(np.int64)
    return PackedBatch(
        windows=windows,
        ids=part.ids.astype(np.int64),
        token_type_ids=token_type_ids,
        lengths=lengths,
        kept=np.repeat(first, kept_lengths) + part.kept,
        kept_lengths=kept_lengths,
    )


def find_equal(table: WindowTable) -> tuple[Long, Long]:
    """Windows that are equal in ids, segments and kept tokens are computed once.

    Returns:
        Indices of the first of each kind, and for every window the position of its kind among them.
    """
    seen: dict[tuple[bytes, int, bytes], int] = {}
    inverse = np.empty(len(table), dtype=np.int64)
    first: list[int] = []
    for window, key in enumerate(_keys(table)):
        kind = seen.setdefault(key, len(first))
        if kind == len(first):
            first.append(window)
        inverse[window] = kind
    return np.array(first, dtype=np.int64), inverse


def _keys(table: WindowTable) -> Iterator[tuple[bytes, int, bytes]]:
    ids = _cut(table.ids, table.starts)
    kept = _cut(table.kept, table.kept_splits)
    yield from zip(ids, table.second_starts.tolist(), kept, strict=True)


def _cut(values: Int, bounds: Long) -> Iterator[bytes]:
    data, width = values.tobytes(), values.itemsize
    for start, end in itertools.pairwise(bounds.tolist()):
        yield data[start * width : end * width]
