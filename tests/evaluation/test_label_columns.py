"""Columns of labels in the types that corpora have them in."""

from __future__ import annotations

import decimal

import pyarrow as pa
import pytest

from rembert_ray.evaluation.label_columns import TYPES, MismatchError, in_lists, kind_of, named, read_labels

SPAN = {"entity_group": "PER", "start": 0, "end": 4}
DICTIONARY = pa.dictionary(pa.int8(), pa.string())


@pytest.mark.parametrize(
    ("values", "column", "kind", "labels"),
    [
        (["a", None], pa.string(), "text", ["a", None]),
        (["a", None], pa.large_string(), "text", ["a", None]),
        (["a", None], pa.string_view(), "text", ["a", None]),
        (["a", None, "b", "a"], DICTIONARY, "text", ["a", None, "b", "a"]),
        ([3, -1, None], pa.int8(), "integer", [3, None, None]),
        ([1.5, float("nan"), None], pa.float32(), "number", [1.5, None, None]),
        ([decimal.Decimal("1.25")], pa.decimal128(5, 2), "number", [1.25]),
        ([["a", None], [], None], pa.large_list(pa.large_string()), "texts", [["a", None], [], None]),
        ([["a", "b"]], pa.list_(pa.string(), 2), "texts", [["a", "b"]]),
        ([[1, -100], None], pa.list_(pa.int32()), "integers", [[1, -100], None]),
        (
            [{"text": ["a"], "answer_start": [3]}, None],
            pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]),
            "texts",
            [["a"], None],
        ),
        (
            [[SPAN | {"score": 0.5}], [], None],
            pa.list_(
                pa.struct(
                    [
                        ("score", pa.float32()),
                        ("end", pa.int32()),
                        ("start", pa.int32()),
                        ("entity_group", pa.string()),
                    ]
                )
            ),
            "entities",
            [[SPAN], [], None],
        ),
    ],
)
def test_labels_are_read_from_any_type_of_a_kind(values, column, kind, labels):
    assert kind_of(column) == kind
    # Two chunks and a slice, as they come from a file.
    array = pa.array([*values, *values], column)
    read = read_labels(pa.chunked_array([array[: len(values)], array[len(values) :]]), kind)
    assert read.type == TYPES[kind]
    assert read.to_pylist() == labels * 2


@pytest.mark.parametrize(
    "column",
    [
        pa.bool_(),
        pa.binary(),
        pa.date32(),
        pa.null(),
        pa.list_(pa.float32()),
        pa.list_(pa.list_(pa.string())),
        pa.struct([("text", pa.string())]),
        pa.struct([("label", pa.string())]),
        pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])),
    ],
)
def test_other_types_cannot_be_labels(column):
    assert kind_of(column) is None


def test_one_text_is_a_list_of_one():
    assert in_lists(pa.array(["a", None, ""])[1:]).to_pylist() == [None, [""]]
    assert in_lists(pa.array([], pa.string())).to_pylist() == []


def test_class_ids_become_names():
    names = ["no", "yes"]
    assert named(pa.array([1, None, 0, -1]), names).to_pylist() == ["yes", None, "no", None]
    ids = pa.array([[9], [1, -100, None, 0], None, []], pa.list_(pa.int64()))[1:]
    assert named(ids, names).to_pylist() == [["yes", None, None, "no"], None, []]
    with pytest.raises(MismatchError, match="class 2, but the model has 2 labels"):
        named(pa.array([0, 2]), names)
