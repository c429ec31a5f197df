"""The content digest sees values and nothing else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.storage.digest import content_digest

TEXT = st.none() | st.text(max_size=5)
ENTITIES = st.none() | st.lists(
    st.none() | st.fixed_dictionaries({"word": TEXT, "score": st.none() | st.floats(width=32, allow_nan=False)}),
    max_size=3,
)
ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(-(2**63), 2**63 - 1),
        "text": TEXT,
        "flag": st.none() | st.booleans(),
        "vector": st.none() | st.lists(st.floats(width=16, allow_nan=False), min_size=3, max_size=3),
        "entities": ENTITIES,
        "when": st.none() | st.datetimes(),
        "price": st.none() | st.integers(-999, 999).map(lambda cents: Decimal(cents).scaleb(-2)),
        "tags": st.none() | st.lists(st.tuples(st.text("ab", min_size=1, max_size=2), st.integers(0, 9)), max_size=2),
    }
)
SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "text": pa.string(),
        "flag": pa.bool_(),
        "vector": pa.list_(pa.float16(), 3),
        "entities": pa.list_(pa.struct({"word": pa.string(), "score": pa.float32()})),
        "when": pa.timestamp("us"),
        "price": pa.decimal128(5, 2),
        "tags": pa.map_(pa.string(), pa.int32()),
    }
)


def build(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {}
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name == "vector":
            values = [None if value is None else [np.float16(x) for x in value] for value in values]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, SCHEMA)


@given(st.lists(ROW, max_size=6), st.data())
def test_chunks_and_slices_do_not_count(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    table = build(rows)
    cut = data.draw(st.integers(0, len(rows)))
    padded = pa.concat_tables([build(rows[:1]), table, build(rows[-1:])]).combine_chunks()
    sliced = padded.slice(len(rows[:1]), len(rows))
    chunked = pa.concat_tables([table.slice(0, cut), build(rows[cut:])])
    assert content_digest(table) == content_digest(sliced) == content_digest(chunked)


@given(st.lists(ROW, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=4))
def test_different_rows_have_different_digests(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert (content_digest(build(one)) == content_digest(build(other))) == _same(one, other)


def _same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    # repr tells 0.0 from -0.0, as the digest does; == does not.
    return repr(build(one).to_pylist()) == repr(build(other).to_pylist())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["", None], [None, ""]),
        ([None], [""]),
        ([[1], [2]], [[1, 2], []]),
        ([[], None], [None, []]),
        ([{"a": None}], [None]),
        ([0], [None]),
    ],
)
def test_near_misses_differ(one: list[Any], other: list[Any]) -> None:
    kind = pa.array(one + other).type
    assert content_digest(pa.table({"x": pa.array(one, kind)})) != content_digest(
        pa.table({"x": pa.array(other, kind)})
    )


def test_names_and_types_count_and_metadata_does_not() -> None:
    table = pa.table({"x": [1]})
    assert content_digest(table) != content_digest(table.rename_columns(["y"]))
    assert content_digest(table) != content_digest(table.cast(pa.schema({"x": pa.int32()})))
    assert content_digest(table) == content_digest(table.replace_schema_metadata({"k": "v"}))


def test_bytes_under_a_null_do_not_count() -> None:
    mask = pa.py_buffer(b"\x01")
    one, other = (
        pa.Array.from_buffers(pa.int64(), 2, [mask, pa.py_buffer(np.array([1, under], "<i8").tobytes())])
        for under in (7, 8)
    )
    assert content_digest(pa.table({"x": one})) == content_digest(pa.table({"x": other}))


def test_dictionaries_count_by_their_values() -> None:
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), ["a", "b"])
    other = pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), ["b", "a"])
    assert content_digest(pa.table({"x": one})) == content_digest(pa.table({"x": other}))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(TypeError, match="no content digest"):
        content_digest(pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}))
