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
    values = {name: _to_python(column) for name, column in columns.items()}
    n_rows = len(next(iter(values.values())))
    errors: list[str | None] = [None] * n_rows
    for name, found in values.items():
        for row, value in enumerate(found):
            if reason := _reason(name, value):
                errors[row] = errors[row] or reason
                found[row] = [] if name in LIST_COLUMNS else ""
    return values, errors


def _to_python(column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        pass
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
