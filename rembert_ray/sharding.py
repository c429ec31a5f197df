"""Row groups of one file -> shards: pure arithmetic, the same result for the same footer, whatever the cluster.

It must not read anything, and must not know what a shard is used for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class RowRange(NamedTuple):
    """A contiguous range of rows of one file.

    `n_bytes` is the estimate that the footer allows: decompressed, but values that the writer put into a dictionary
    count once, so a column of few long values that repeat holds more than this.
    """

    row_start: int
    n_rows: int
    n_bytes: int


def cut_row_groups(
    group_rows: Sequence[int], group_bytes: Sequence[int], *, max_rows: int, max_bytes: int
) -> list[RowRange]:
    """Cut a file into ranges of at most `max_rows` rows and `max_bytes` bytes.

    Neighbouring row groups that fit together are merged; a row group over a limit is split into ranges of even
    length (they differ by one row at most), which share no row with its neighbours. So a range is whole row
    groups, or lies inside one. Rows of a split group are taken as equally large; a single row over `max_bytes`
    is a range of its own. Groups without rows add nothing.
    """
    ranges: list[RowRange] = []
    open_range = RowRange(0, 0, 0)
    row_start = 0
    for n_rows, n_bytes in zip(group_rows, group_bytes, strict=True):
        together = RowRange(open_range.row_start, open_range.n_rows + n_rows, open_range.n_bytes + n_bytes)
        if n_rows == 0:
            continue
        if together.n_rows <= max_rows and together.n_bytes <= max_bytes:
            open_range = together
        else:
            if open_range.n_rows:
                ranges.append(open_range)
            open_range = RowRange(row_start, n_rows, n_bytes)
            if n_rows > max_rows or n_bytes > max_bytes:
                ranges.extend(_split_evenly(open_range, max_rows, max_bytes))
                open_range = RowRange(row_start + n_rows, 0, 0)
        row_start += n_rows
    if open_range.n_rows:
        ranges.append(open_range)
    return ranges


def _split_evenly(whole: RowRange, max_rows: int, max_bytes: int) -> list[RowRange]:
    largest = max_rows
    if whole.n_bytes > max_bytes:
        largest = min(largest, max(1, max_bytes * whole.n_rows // whole.n_bytes))
    n_ranges = -(-whole.n_rows // largest)
    row_cuts = [whole.n_rows * i // n_ranges for i in range(n_ranges + 1)]
    byte_cuts = [whole.n_bytes * cut // whole.n_rows for cut in row_cuts]
    return [
        RowRange(whole.row_start + row_cuts[i], row_cuts[i + 1] - row_cuts[i], byte_cuts[i + 1] - byte_cuts[i])
        for i in range(n_ranges)
    ]
