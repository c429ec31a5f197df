"""JSON of somebody else: every way to make it explode ends in a reason."""

from __future__ import annotations

import json

import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.storage.json_file import MAX_DEPTH, MAX_JSON_BYTES, MAX_VALUES, parse_json_object, read_json_object
from rembert_ray.storage.location import Location


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1]", "it holds a list"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is written twice"),
        ('{"a": {"b": NaN}}', "NaN is no finite number"),
        ('{"a": -Infinity}', "no finite number"),
        ('{"a": 1e999}', "1e999 is no finite number"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"a":' * 100_000, "nested more than 32 deep"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested more than 32 deep"),
        ('{"a": [' + "[]," * MAX_VALUES + "1]}", "values, the most is 2,000,000"),
        (r'{"a": "\ud800"}', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json_object(text.encode())


def test_bytes_that_are_no_utf8_are_refused():
    for data in (b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}'):
        with pytest.raises(ValueError, match="utf-8"):
            parse_json_object(data)


def test_what_is_taken():
    value = {"a": [1, 2.5, None, True, {"b": 10**30}], "é😀": "\U0001f600"}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), "\ufeff" + json.dumps(value)):
        assert parse_json_object(text.encode()) == value
    deep = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert parse_json_object(deep.encode())


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(1024**4)
    with pytest.raises(UnusableError, match=f"the most for such a file is {MAX_JSON_BYTES:,}"):
        read_json_object(Location(str(tmp_path / "a.json")))


def test_a_file_on_s3_that_is_too_large_is_not_read(s3_folder):
    from rembert_ray.storage.location import read_bytes
    from rembert_ray.storage.put import put_new

    put_new(s3_folder.child("a"), b"x" * 1000)
    assert len(read_bytes(s3_folder.child("a"), most_bytes=1000)) == 1000
    with pytest.raises(UnusableError, match="1,000 bytes or more"):
        read_bytes(s3_folder.child("a"), most_bytes=999)
