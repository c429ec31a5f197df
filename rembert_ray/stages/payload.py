"""The columns that a shard's table has between the stages, and their way to and from flat numpy arrays.

A row of the table is a row of the shard. Windows, tokens and what the model returned for them are list columns, so
that no stage ever has to match two tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.ragged import splits
from rembert_ray.tasks.base import Documents

# No column of a corpus is called like this, so kept columns keep their names.
PREFIX = "rembert_ray."
TEXT = PREFIX + "text"
ERROR = PREFIX + "error"
N_TOKENS = PREFIX + "n_tokens"
IDS = PREFIX + "ids"
OFFSETS = PREFIX + "offsets"
IS_UNKNOWN = PREFIX + "is_unknown"
WINDOW_LENGTHS = PREFIX + "window_lengths"
KEPT_STARTS = PREFIX + "kept_starts"
KEPT_ENDS = PREFIX + "kept_ends"
VALUE = PREFIX + "value."


def document_columns(documents: Documents) -> dict[str, pa.Array]:
    """The encoded documents of a shard as columns."""
    windows, n_windows = documents.windows, documents.n_windows
    tokens_of_rows = splits(n_windows)
    columns = {
        N_TOKENS: pa.array(documents.n_tokens.astype(np.int32)),
        IDS: ragged(windows.ids, windows.starts[tokens_of_rows]),
        WINDOW_LENGTHS: ragged(windows.lengths.astype(np.int32), tokens_of_rows),
        KEPT_STARTS: ragged(windows.kept_starts, tokens_of_rows),
        KEPT_ENDS: ragged(windows.kept_ends, tokens_of_rows),
    }
    if documents.offsets is not None and documents.is_unknown is not None:
        columns[IS_UNKNOWN] = ragged(documents.is_unknown, splits(documents.n_tokens))
        columns[OFFSETS] = ragged(documents.offsets, splits(documents.n_tokens))
    return columns


def window_table(table: pa.Table) -> WindowTable:
    """All windows of a shard's table, row after row."""
    return WindowTable(
        flat(table, IDS), splits(flat(table, WINDOW_LENGTHS)), flat(table, KEPT_STARTS), flat(table, KEPT_ENDS)
    )


def windows_of_rows(table: pa.Table) -> Long:
    """int64 `[rows]`: how many windows each row has."""
    return list_lengths(table, WINDOW_LENGTHS)


def set_aside(table: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """The table with these rows turned into rows with an error: no windows, nothing to compute."""
    if not reasons:
        return table
    errors = table.column(ERROR).to_pylist()
    for row, reason in reasons.items():
        errors[row] = errors[row] or reason
    is_aside = np.zeros(table.num_rows, dtype=np.bool_)
    is_aside[list(reasons)] = True
    for name in (IDS, WINDOW_LENGTHS, KEPT_STARTS, KEPT_ENDS):
        column = _one_chunk(table, name)
        cleared = column.take(pa.array(np.arange(table.num_rows), mask=is_aside))
        table = table.set_column(table.column_names.index(name), name, cleared)
    return table.set_column(table.column_names.index(ERROR), ERROR, pa.array(errors, pa.string()))


def ragged(values: NDArray[Any], row_splits: NDArray[np.integer]) -> pa.Array:
    """Flat values `[total]` or `[total, width]` and row boundaries `[rows + 1]` as a list column."""
    items = pa.array(values.reshape(-1))
    if values.ndim == 2:
        items = pa.FixedSizeListArray.from_arrays(items, values.shape[1])
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(row_splits, np.int64)), items)


def flat(table: pa.Table, name: str) -> NDArray[Any]:
    """The flat values of a list column, `[total]` or `[total, width]`; a null row has none."""
    items = _one_chunk(table, name).flatten()
    if pa.types.is_fixed_size_list(items.type):
        return np.asarray(items.flatten()).reshape(-1, items.type.list_size)
    return np.asarray(items) if not pa.types.is_boolean(items.type) else items.to_numpy(zero_copy_only=False)


def list_lengths(table: pa.Table, name: str) -> Long:
    """int64 `[rows]`: the length of each list; 0 for a null."""
    return np.asarray(_one_chunk(table, name).value_lengths().fill_null(0)).astype(np.int64)


def value_columns(values: Mapping[str, NDArray[Any]], row_splits: NDArray[np.integer]) -> dict[str, pa.Array]:
    """What the head returned, by row."""
    return {VALUE + name: ragged(value, row_splits) for name, value in values.items()}


def values_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """What the head returned, flat."""
    names = [name for name in table.column_names if name.startswith(VALUE)]
    return {name.removeprefix(VALUE): flat(table, name) for name in names}


def scatter(array: pa.Array, is_filled: NDArray[np.bool_]) -> pa.Array:
    """An array with a value for each True of `is_filled` `[rows]`, spread to all rows; the others are null."""
    index = np.cumsum(is_filled) - 1
    return array.take(pa.array(index, mask=~is_filled))


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
