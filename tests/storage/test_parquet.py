"""Exact row ranges, damaged files, and objects that other readers understand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.storage import parquet, s3
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import encode_parquet, open_parquet, read_footer, read_footer_values, read_rows
from rembert_ray.storage.put import put_new
from tests.servers.fault_proxy import Fault

N_ROWS = 5000
TABLE = pa.table(
    {
        "id": pa.array(range(N_ROWS), pa.int64()),
        "text": pa.array([f"row {i}" if i % 7 else None for i in range(N_ROWS)]),
        "a.b": pa.array(range(N_ROWS), pa.int32()),
        "nested": pa.array([{"x": i, "y": [i]} for i in range(N_ROWS)]),
    }
)
FAULT_SEEDS = 20


def stored(table: pa.Table, **options: Any) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target, write_page_checksum=True, **options)
    return target.getvalue()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Location:
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    path.write_bytes(stored(TABLE, row_group_size=1300, data_page_size=2000))
    return locate(str(path))


@given(data=st.data())
def test_any_range_is_exact(example: Location, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, N_ROWS))
    n_rows = data.draw(st.integers(0, N_ROWS - start))
    columns = data.draw(st.lists(st.sampled_from(TABLE.column_names), unique=True, min_size=1) | st.none())
    rows = read_rows(example, start, n_rows, columns)
    assert rows.equals((TABLE if columns is None else TABLE.select(columns)).slice(start, n_rows))


def test_ranges_from_a_store(store: Location) -> None:
    target = store.child("x.parquet")
    put_new(target, stored(TABLE, row_group_size=1300))
    assert read_rows(target, 1299, 2603, ["text", "id"]).equals(TABLE.select(["text", "id"]).slice(1299, 2603))
    assert read_footer(target).num_row_groups == 4


def test_large_row_groups_are_streamed(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "PREFETCH_BYTES", 0)
    target = s3_folder.child("x.parquet")
    put_new(target, stored(TABLE))
    assert read_rows(target, 4000, 10, ["text"]).equals(TABLE.select(["text"]).slice(4000, 10))


def test_only_the_row_groups_that_overlap_are_fetched(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = pa.table({"v": np.random.default_rng(0).integers(0, 2**62, 200_000)})
    target = s3_folder.child("x.parquet")
    put_new(target, stored(vectors, row_group_size=20_000, use_dictionary=False, compression="none"))
    read, fetched = s3.read_range, []

    def counting(path: str, start: int, stop: int, etag: str) -> bytes:
        fetched.append(stop - start)
        return read(path, start, stop, etag)

    monkeypatch.setattr(s3, "read_range", counting)
    assert read_rows(target, 100_000, 20_000, ["v"]).equals(vectors.slice(100_000, 20_000))
    assert 160_000 < sum(fetched) < 3 * 160_000


def test_a_file_of_no_rows(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(stored(TABLE.slice(0, 0)))
    assert read_rows(locate(str(tmp_path / "x")), 0, 0, ["id"]).equals(TABLE.slice(0, 0).select(["id"]))


def test_a_range_that_is_not_there_is_an_error_of_the_shard(example: Location) -> None:
    with pytest.raises(ShardError, match=r"x\.parquet, rows 4999 to 5001: the file has 5000 rows"):
        read_rows(example, 4999, 2)
    with pytest.raises(ShardError, match=r"no column 'txt'; the file has id, text"):
        read_rows(example, 0, 1, ["id", "txt"])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 10, b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_damaged_footer_is_an_error_of_the_shard(store: Location, content: bytes) -> None:
    target = store.child("x.parquet")
    put_new(target, content)
    with pytest.raises(ShardError, match=r"x\.parquet, the footer"):
        read_footer(target)
    with pytest.raises(ShardError, match=r"x\.parquet, rows 0 to 1"):
        read_rows(target, 0, 1)


def test_a_flipped_bit_in_any_page_is_found(tmp_path: Path) -> None:
    table = pa.table({"v": np.random.default_rng(0).integers(0, 2**62, 10_000)})
    good = stored(table, use_dictionary=False, compression="none")
    for seed in range(FAULT_SEEDS):
        # The first bytes are a page header, whose damage is found by its parser or not at all.
        place = int(np.random.default_rng(seed).integers(200, 70_000))
        bad = good[:place] + bytes([good[place] ^ (1 << seed % 8)]) + good[place + 1 :]
        path = tmp_path / f"{seed}"
        path.write_bytes(bad)
        with pytest.raises(ShardError, match=r"rows 0 to 10000: cannot be read"):
            read_rows(locate(str(path)), 0, 10_000)


def test_a_bit_flipped_on_the_way_is_found(faults: Any, s3_folder: Location) -> None:
    target = s3_folder.child("x.parquet")
    put_new(target, stored(pa.table({"v": np.random.default_rng(0).integers(0, 2**62, 30_000)}), compression="none"))
    with open_parquet(target) as file:
        assert file.metadata.num_rows == 30_000
    faults.faults.append(Fault("^GET .*x.parquet", -1, "flip"))
    with pytest.raises(ShardError):
        read_rows(target, 0, 30_000)


@pytest.mark.parametrize("action", ["status:503", "truncate", "lose_reply"])
def test_a_read_that_breaks_is_tried_again(faults: Any, s3_folder: Location, action: str) -> None:
    target = s3_folder.child("x.parquet")
    put_new(target, stored(TABLE))
    faults.faults.append(Fault("^GET .*x.parquet", 3, action))
    assert read_rows(target, 10, 100, ["id"]).equals(TABLE.select(["id"]).slice(10, 100))


def test_a_store_that_stays_away_is_no_fault_of_the_shard(
    faults: Any, s3_folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = s3_folder.child("x.parquet")
    put_new(target, stored(TABLE))
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 0.3)
    faults.faults.append(Fault("x.parquet", -1, "hang"))
    with pytest.raises(StorageError, match=r"rows 0 to 1.*Run the same command again"):
        read_rows(target, 0, 1, budget_s=0.5)


def test_a_reply_that_drips_is_given_up(faults: Any, s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single byte is late, so no time-out of the client would ever end it."""
    target = s3_folder.child("x.parquet")
    put_new(target, stored(TABLE))
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 0.3)
    faults.faults.append(Fault("^GET .*x.parquet", -1, "slow"))
    with pytest.raises(StorageError, match="FSTimeoutError"):
        read_rows(target, 0, 1, budget_s=0.5)


def test_a_file_that_vanished_is_named(store: Location) -> None:
    with pytest.raises(ShardError, match=r"gone\.parquet, rows 0 to 1: the file is gone"):
        read_rows(store.child("gone.parquet"), 0, 1)


def test_expired_credentials_stop_the_job_and_not_one_shard(
    s3_folder: Location, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = s3_folder.child("x.parquet")
    put_new(target, stored(TABLE))
    if not s3_server.checks_secrets:
        pytest.skip("moto accepts any secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    # HEAD has no body, so the store can only say 403.
    with pytest.raises(StorageError, match=r"permission denied .*AWS_SECRET_ACCESS_KEY"):
        read_rows(target, 0, 1)


def test_a_small_file_that_decodes_to_a_flood_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pa.table(
        {"text": pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, "i4")), ["x" * 100_000]).dictionary_decode()}
    )
    path = tmp_path / "bomb"
    path.write_bytes(stored(bomb, compression="zstd"))
    assert path.stat().st_size < 5000
    monkeypatch.setattr(parquet, "LARGEST_TABLE_BYTES", 50_000_000)
    before = pa.total_allocated_bytes()
    with pytest.raises(ShardError, match="decode to more than 50000000 bytes: use smaller shards"):
        read_rows(locate(str(path)), 0, 4000)
    assert pa.total_allocated_bytes() - before < 1_000_000


VECTORS = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(40, dtype=np.float16)), 4)
RESULT = pa.table(
    {
        "id": pa.array([str(i) for i in range(10)]),
        "embedding": VECTORS,
        "scores": pa.array(
            [[{"label": "a", "score": 0.5}]] * 10, pa.list_(pa.struct({"label": pa.string(), "score": pa.float32()}))
        ),
        "error": pa.nulls(10, pa.string()),
    }
)


def test_an_encoded_table_comes_back_with_its_types_and_footer(tmp_path: Path) -> None:
    data = encode_parquet(RESULT, {"shard": "7", "source": "s3://b/ä.parquet"})
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    location = locate(str(path))
    assert read_rows(location, 0, 10).equals(RESULT)
    assert read_rows(location, 0, 10).schema.field("embedding").type == pa.list_(pa.float16(), 4)
    footer = read_footer_values(location)
    assert footer.pop("seal").startswith("sha256-of-this-file:")
    assert footer == {"shard": "7", "source": "s3://b/ä.parquet"}
    with open_parquet(location) as file:
        column = file.metadata.row_group(0).column(0)
        assert (column.compression, column.has_offset_index) == ("ZSTD", True)


def test_duckdb_reads_what_is_written(tmp_path: Path) -> None:
    floats = RESULT.set_column(1, "embedding", RESULT["embedding"].cast(pa.list_(pa.float32(), 4)))
    (tmp_path / "x.parquet").write_bytes(encode_parquet(floats, {"shard": "7"}))
    query = f"select id, embedding, scores[1].label from '{tmp_path}/x.parquet' order by id limit 1"
    assert duckdb.sql(query).fetchall() == [("0", [0.0, 1.0, 2.0, 3.0], "a")]


def test_row_groups_follow_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", TABLE.nbytes // 5)
    with pq.ParquetFile(io.BytesIO(encode_parquet(TABLE, {}))) as file:
        assert 5 <= file.num_row_groups <= 6
        assert file.read().equals(TABLE)


def test_a_table_of_no_rows_is_a_file() -> None:
    with pq.ParquetFile(io.BytesIO(encode_parquet(RESULT.slice(0, 0), {}))) as file:
        assert file.read().schema.equals(RESULT.schema)


def test_what_parquet_cannot_hold_is_an_error_of_the_shard() -> None:
    with pytest.raises(ShardError, match="cannot encode 1 rows"):
        encode_parquet(pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), {})
