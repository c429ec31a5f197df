"""The values of a task's input columns, and for each row why it cannot be used. Needs no tokenizer.

Parquet promises UTF-8 and does not check it: lone surrogates and other invalid bytes do reach us.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rembert_ray.tasks.base import LIST_COLUMNS


def arrow_type(name: str) -> pa.DataType:
    """The type that a task's input column is read as: text, or lists of text."""
    return pa.large_list(pa.large_string()) if name in LIST_COLUMNS else pa.large_string()


def read_inputs(columns: dict[str, pa.ChunkedArray]) -> tuple[dict[str, list[Any]], list[str | None]]:
    """Values of each column, with "" or [] where a row cannot be used, and for each row the first reason, or None."""
    values: dict[str, list[Any]] = {}
    errors: list[str | None] = [None] * len(next(iter(columns.values())))
    for name, column in columns.items():
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
