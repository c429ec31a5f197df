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

from rembert_ray.engine.documents import Documents
from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.ragged import as_lists, flat_values, splits

# No column of a corpus is called like this, so kept columns keep their names.
PREFIX = "rembert_ray."
INPUT = PREFIX + "input."
EXTRA = PREFIX + "extra."
VALUE = PREFIX + "value."
ERROR = PREFIX + "error"
N_TOKENS = PREFIX + "n_tokens"
TRUNCATED = PREFIX + "truncated"
IDS = PREFIX + "ids"
OFFSETS = PREFIX + "offsets"
IS_UNKNOWN = PREFIX + "is_unknown"
WINDOW_LENGTHS = PREFIX + "window_lengths"
SECOND_STARTS = PREFIX + "second_starts"
KEPT = PREFIX + "kept"
KEPT_LENGTHS = PREFIX + "kept_lengths"
OF_WINDOWS = (IDS, WINDOW_LENGTHS, SECOND_STARTS, KEPT, KEPT_LENGTHS)


def document_columns(documents: Documents) -> dict[str, pa.Array]:
    """The encoded documents of a shard as columns."""
    windows = documents.windows
    bounds = splits(documents.n_windows)
    columns = {
        N_TOKENS: pa.array(documents.n_tokens.astype(np.int32)),
        TRUNCATED: pa.array(documents.truncated),
        IDS: as_lists(windows.ids, windows.starts[bounds]),
        WINDOW_LENGTHS: as_lists(windows.lengths.astype(np.int32), bounds),
        SECOND_STARTS: as_lists(windows.second_starts, bounds),
        KEPT: as_lists(windows.kept, windows.kept_splits[bounds]),
        KEPT_LENGTHS: as_lists(np.diff(windows.kept_splits).astype(np.int32), bounds),
        **{EXTRA + name: column for name, column in documents.extras.items()},
    }
    if documents.offsets is not None and documents.is_unknown is not None:
        columns[IS_UNKNOWN] = as_lists(documents.is_unknown, splits(documents.n_tokens))
        columns[OFFSETS] = as_lists(documents.offsets, splits(documents.n_tokens))
    return columns


def window_table(table: pa.Table) -> WindowTable:
    """All windows of a shard's table, row after row."""
    return WindowTable(
        ids=flat(table, IDS),
        starts=splits(flat(table, WINDOW_LENGTHS)),
        second_starts=flat(table, SECOND_STARTS),
        kept=flat(table, KEPT),
        kept_splits=splits(flat(table, KEPT_LENGTHS)),
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
    for name in OF_WINDOWS:
        column = _one_chunk(table, name)
        cleared = column.take(pa.array(np.arange(table.num_rows), mask=is_aside))
        table = table.set_column(table.column_names.index(name), name, cleared)
    return table.set_column(table.column_names.index(ERROR), ERROR, pa.array(errors, pa.string()))


def flat(table: pa.Table, name: str) -> NDArray[Any]:
    """The flat values of a list column, `[total]` or `[total, width]`; a null row has none."""
    return flat_values(_one_chunk(table, name))


def list_lengths(table: pa.Table, name: str) -> Long:
    """int64 `[rows]`: the length of each list; 0 for a null."""
    return np.asarray(_one_chunk(table, name).value_lengths().fill_null(0)).astype(np.int64)


def prefixed(table: pa.Table, prefix: str) -> dict[str, str]:
    """Names of the columns with a prefix: without it -> in the table."""
    return {name.removeprefix(prefix): name for name in table.column_names if name.startswith(prefix)}


def scatter(array: pa.Array, is_filled: NDArray[np.bool_]) -> pa.Array:
    """An array with a value for each True of `is_filled` `[rows]`, spread to all rows; the others are null."""
    index = np.cumsum(is_filled) - 1
    return array.take(pa.array(index, mask=~is_filled))


def _one_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
