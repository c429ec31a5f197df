"""The seal: every flipped bit is found, what was sealed stays as readable as it was."""

from __future__ import annotations

import hashlib
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.errors import ShardError
from rembert_ray.storage.parquet import encode_parquet
from rembert_ray.storage.seal import MARKER, NO_SEAL, PLACEHOLDER, broken_seal, seal, seal_in_place, sealed_json

TABLE = pa.table({"id": list(range(200)), "text": [f"row {row} {MARKER.decode()}" for row in range(200)]})
RECORD = {"state": "held", "message": f"{PLACEHOLDER} é\n", "nested": {"seal": PLACEHOLDER}, "n": 1.5}


def test_the_digest_is_the_sha256_of_the_file_with_zeros_in_its_place() -> None:
    sealed = seal(b"before " + PLACEHOLDER.encode() + b" after")
    digest = hashlib.sha256(b"before " + PLACEHOLDER.encode() + b" after").hexdigest().encode()
    assert sealed == b"before " + MARKER + digest + b" after"
    assert broken_seal(sealed) is None


@given(st.binary(), st.binary().filter(lambda after: MARKER not in after), st.data())
def test_whatever_stands_around_it_a_seal_holds_and_a_flipped_bit_breaks_it(
    before: bytes, after: bytes, data: st.DataObject
) -> None:
    sealed = seal(before + PLACEHOLDER.encode() + after)
    assert broken_seal(sealed) is None
    assert broken_seal(memoryview(sealed)) is None
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    damaged = bytearray(sealed)
    damaged[bit // 8] ^= 1 << bit % 8
    assert broken_seal(damaged) is not None


@given(st.binary(), st.data())
def test_cut_extended_and_shuffled_files_are_found(before: bytes, data: st.DataObject) -> None:
    sealed = seal(before + PLACEHOLDER.encode() + b"}")
    cut = data.draw(st.integers(0, len(sealed) - 1))
    assert broken_seal(sealed[:cut]) is not None
    if cut:
        assert broken_seal(sealed[cut:]) is not None
    assert broken_seal(sealed + data.draw(st.binary(min_size=1))) is not None
    assert broken_seal(data.draw(st.binary(min_size=1)) + sealed) is not None


@given(st.one_of(st.binary(), st.binary().map(lambda data: MARKER + data), st.binary().map(lambda data: data + MARKER)))
def test_any_bytes_have_a_defined_answer(data: bytes) -> None:
    assert isinstance(broken_seal(data), str)


def test_a_seal_far_from_the_end_is_found() -> None:
    assert broken_seal(seal(PLACEHOLDER.encode() + b"x" * 3_000_000)) is None


def test_without_a_placeholder_nothing_is_sealed() -> None:
    sealed = bytearray(seal(PLACEHOLDER.encode()))
    for data in (bytearray(b""), bytearray(b"text"), bytearray(MARKER + b"00"), sealed):
        before = bytes(data)
        with pytest.raises(ValueError, match="no place for a seal"):
            seal_in_place(data)
        assert data == before
    assert broken_seal(b"text") == NO_SEAL


def test_every_bit_of_a_small_parquet_file_counts() -> None:
    sealed = encode_parquet(TABLE.slice(0, 3), {"shard": "7"})
    assert broken_seal(sealed) is None
    damaged = bytearray(sealed)
    for bit in range(8 * len(sealed)):
        damaged[bit // 8] ^= 1 << bit % 8
        assert broken_seal(damaged) is not None
        damaged[bit // 8] ^= 1 << bit % 8


def test_a_sealed_parquet_file_is_read_by_others_and_its_text_may_hold_the_marker() -> None:
    sealed = encode_parquet(TABLE, {"shard": "7"})
    assert broken_seal(sealed) is None
    assert pq.read_table(io.BytesIO(sealed)).equals(TABLE)
    assert pq.read_metadata(io.BytesIO(sealed)).metadata[b"rembert_ray.seal"].startswith(MARKER)


def test_a_footer_value_that_could_be_taken_for_the_seal_is_refused() -> None:
    with pytest.raises(ShardError, match="the source holds 'sha256-of-this-file:'"):
        encode_parquet(TABLE, {"source": f"/data/{PLACEHOLDER}.parquet"})


def test_json_carries_its_seal_as_the_last_key() -> None:
    sealed = sealed_json({"seal": "an older one", **RECORD})
    values = json.loads(sealed)
    assert list(values) == [*RECORD, "seal"]
    assert {key: values[key] for key in RECORD} == RECORD
    generator = random.Random(5)
    for bit in generator.sample(range(8 * len(sealed)), 500):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert broken_seal(damaged) is not None
