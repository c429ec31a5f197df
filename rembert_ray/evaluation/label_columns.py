"""What kind of labels a kept column holds, and the labels as the plain arrays that measures take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["text", "integer", "number", "texts", "integers", "entities"]

KINDS: dict[Kind, str] = {
    "text": "text",
    "integer": "whole numbers",
    "number": "numbers",
    "texts": "lists of text",
    "integers": "lists of whole numbers",
    "entities": "lists of structs with entity_group, start and end",
}
SPAN = pa.struct([("entity_group", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "texts": pa.list_(pa.string()),
    "integers": pa.list_(pa.int64()),
    "entities": pa.list_(SPAN),
}
GOLD_TEXT = "text"
"""The field of the structs in which datasets of questions keep their answers (`answers: {text, answer_start}`)."""


class MismatchError(ValueError):
    """Labels that do not fit the model, or what it predicted."""


def kind_of(column: pa.DataType) -> Kind | None:
    """What a column of labels holds; None for a type that cannot be labels."""
    column = _plain(column)
    if pa.types.is_struct(column) and column.get_field_index(GOLD_TEXT) >= 0:
        inner = kind_of(column.field(GOLD_TEXT).type)
        return inner if inner == "texts" else None
    if _is_list(column):
        item = _plain(column.value_type)
        if pa.types.is_struct(item):
            return "entities" if all(item.get_field_index(field.name) >= 0 for field in SPAN) else None
        return cast(dict[str, Kind], {"text": "texts", "integer": "integers"}).get(_kind_of_value(item) or "")
    return _kind_of_value(column)


def read_labels(column: pa.ChunkedArray, kind: Kind) -> pa.Array:
    """The labels in the type that `TYPES` gives a kind, null where there is none.

    There is none where the column is null, or NaN, or a negative whole number (datasets write -1 for "no label").
    """
    labels = column.combine_chunks()
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if pa.types.is_struct(labels.type):
        labels = pc.struct_field(labels, GOLD_TEXT)
    if kind == "entities":
        names = [field.name for field in SPAN]
        spans = [
            None if row is None else [{name: one[name] for name in names} for one in row if one is not None]
            for row in labels.to_pylist()
        ]
        return pa.array(spans, TYPES[kind])
    labels = labels.cast(TYPES[kind])
    if kind == "integer":
        return pc.if_else(pc.greater_equal(labels, 0), labels, None)
    return pc.if_else(pc.is_finite(labels), labels, None) if kind == "number" else labels


def in_lists(texts: pa.Array) -> pa.Array:
    """Each text as a list of one; a null stays null."""
    lengths = np.asarray(texts.is_valid()).astype(np.int32)
    return _lists(lengths, texts.drop_null(), texts.is_null())


def named(ids: pa.Array, names: Sequence[str]) -> pa.Array:
    """Class ids, or lists of them, as names; a negative id, or null, has none.

    Raises:
        MismatchError: an id that has no name.
    """
    if not _is_list(ids.type):
        return _take_names(ids, names)
    lengths = np.asarray(ids.value_lengths().fill_null(0)).astype(np.int32)
    return _lists(lengths, _take_names(ids.flatten(), names), ids.is_null())


def _take_names(ids: pa.Array, names: Sequence[str]) -> pa.Array:
    largest = pc.max(ids).as_py()
    if largest is not None and largest >= len(names):
        raise MismatchError(f"class {largest}, but the model has {len(names)} labels")
    return pa.array(names, pa.string()).take(pc.if_else(pc.greater_equal(ids, 0), ids, None))


def _lists(lengths: np.typing.NDArray[np.int32], values: pa.Array, is_null: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=is_null)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _kind_of_value(kind: pa.DataType) -> Kind | None:
    tests: dict[Kind, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "integer": (pa.types.is_integer,),
        "number": (pa.types.is_floating, pa.types.is_decimal),
    }
    return next((name for name, checks in tests.items() if any(check(kind) for check in checks)), None)
