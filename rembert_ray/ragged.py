"""Arithmetic of ragged arrays: rows of different lengths, flat, with the boundaries beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Lengths = NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]


def splits(lengths: Lengths) -> NDArray[np.int64]:
    """Row lengths `[n]` to row boundaries `[n + 1]`, which start with 0."""
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def ragged_arange(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """`start, start + 1, ...` for each pair of start and length, one after the other: `[sum(lengths)]`."""
    bounds = splits(lengths)
    steps: NDArray[np.int64] = np.arange(bounds[-1], dtype=np.int64)
    return steps + np.repeat(np.asarray(starts, np.int64) - bounds[:-1], lengths)


def as_lists(values: NDArray[Any], row_splits: NDArray[np.integer]) -> pa.Array:
    """Flat values `[total]` or `[total, width]` and row boundaries `[rows + 1]` as a list column."""
    items = pa.array(values.reshape(-1))
    if values.ndim == 2:
        items = pa.FixedSizeListArray.from_arrays(items, values.shape[1])
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(row_splits, np.int64)), items)


def flat_values(lists: pa.Array) -> NDArray[Any]:
    """The flat values of a list column, `[total]` or `[total, width]`; a null row has none."""
    items = lists.flatten()
    if pa.types.is_fixed_size_list(items.type):
        return np.asarray(items.flatten()).reshape(-1, items.type.list_size)
    return np.asarray(items) if not pa.types.is_boolean(items.type) else items.to_numpy(zero_copy_only=False)


def as_items(lists: pa.Array, values: pa.Array) -> pa.Array:
    """`values`, one for each item of `lists` (flattened, so that null rows have none), as lists like these."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    bounds = pa.array(splits(lengths).astype(np.int32))
    return pa.ListArray.from_arrays(bounds, values, mask=lists.is_null() if lists.null_count else None)


def first_items(lists: pa.Array) -> pa.Array:
    """The first item of each list; null where there is none."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return pc.list_flatten(lists).take(pa.array(splits(lengths)[:-1], mask=lengths == 0))
