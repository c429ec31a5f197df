"""The values of a task's input columns, and for each row why it cannot be used. Needs no tokenizer.

Parquet promises UTF-8 and does not check it: lone surrogates and other invalid bytes do reach us. So do rows of
gigabytes, which compress to nothing: their size is looked at before they become Python's strings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rembert_ray.errors import ShardError
from rembert_ray.storage.parquet import LARGEST_TABLE_BYTES
from rembert_ray.tasks.base import LIST_COLUMNS

LARGEST_ROW_BYTES = 16 * 1024**2
"""A row with more than this in one input column gets an error value: 16 MiB are the text of some ten books."""
PIECE_BYTES = 8 * 1024**2
# What an item of a list costs as a string of Python's, beside its characters.
ITEM_BYTES = 64


def arrow_type(name: str) -> pa.DataType:
    """The type that a task's input column is read as: text, or lists of text."""
    return pa.large_list(pa.large_string()) if name in LIST_COLUMNS else pa.large_string()


def cast_input(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of the corpus as `arrow_type(name)`.

    Raises `ShardError` when it has more items than a shard may hold, 1 GiB at `ITEM_BYTES` each.
    """
    if name in LIST_COLUMNS:
        n_items = pc.sum(pc.list_value_length(column)).as_py() or 0
        if n_items * ITEM_BYTES > LARGEST_TABLE_BYTES:
            raise ShardError(f"{name} has {n_items:,} items in {len(column):,} rows: use smaller shards")
    return column.cast(arrow_type(name))


def cut_into_pieces(columns: list[pa.ChunkedArray]) -> list[int]:
    """Numbers of rows, one after the other, that have about `PIECE_BYTES` in all input columns together."""
    ends = np.cumsum(np.sum([_row_bytes(column) for column in columns], axis=0))
    starts = np.concatenate([[0], ends[:-1]])
    lengths: list[int] = np.unique(starts // PIECE_BYTES, return_counts=True)[1].tolist()
    return lengths


def read_inputs(columns: dict[str, pa.ChunkedArray]) -> tuple[dict[str, list[Any]], list[str | None]]:
    """Values of each column, with "" or [] where a row cannot be used, and for each row the first reason, or None."""
    values: dict[str, list[Any]] = {}
    errors: list[str | None] = [None] * len(next(iter(columns.values())))
    for name, column in columns.items():
        sizes = _row_bytes(column)
        is_too_large = sizes > LARGEST_ROW_BYTES
        for row in np.flatnonzero(is_too_large).tolist():
            errors[row] = errors[row] or f"{name} has {sizes[row]:,} bytes, more than {LARGEST_ROW_BYTES:,}"
        if is_too_large.any():
            column = pc.if_else(pa.array(is_too_large), pa.scalar(None, column.type), column)
        try:
            values[name] = column.to_pylist()
            if not _has_nulls(column):
                continue
        except UnicodeDecodeError:
            values[name] = _decode_each(column)
        for row, value in enumerate(values[name]):
            if reason := _reason(name, value):
                errors[row] = errors[row] or reason
                values[name][row] = [] if name in LIST_COLUMNS else ""
    return values, errors


def _row_bytes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Bytes of each row: its text, or those of all items with `ITEM_BYTES` for each."""
    if not pa.types.is_large_list(column.type):
        return _text_bytes(column)
    rows = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        n_items = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        ends = np.concatenate([[0], np.cumsum(_text_bytes(chunk.flatten()) + ITEM_BYTES)])
        rows.append(np.diff(ends[np.concatenate([[0], np.cumsum(n_items)])]))
    return np.concatenate(rows)


def _text_bytes(texts: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
    return lengths


def _has_nulls(column: pa.ChunkedArray) -> bool:
    is_list = pa.types.is_large_list(column.type)
    return column.null_count > 0 or (is_list and any(chunk.flatten().null_count for chunk in column.chunks))


def _decode_each(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_large_list(column.type):
        rows = column.cast(pa.large_list(pa.large_binary())).to_pylist()
        return [None if row is None else [_decode(item) for item in row] for row in rows]
    return [_decode(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decode(data: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error


def _reason(name: str, value: Any) -> str | None:
    if name not in LIST_COLUMNS:
        return _text_reason(name, value)
    if value is None:
        return f"{name} is null"
    reasons = (_text_reason(f"{name}[{index}]", item) for index, item in enumerate(value))
    return next((reason for reason in reasons if reason), None)


def _text_reason(name: str, value: Any) -> str | None:
    if value is None:
        return f"{name} is null"
    if isinstance(value, UnicodeDecodeError):
        return f"{name} is not valid UTF-8 at byte {value.start}"
    return None
