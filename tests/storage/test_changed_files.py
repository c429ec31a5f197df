"""Rows are read from exactly the file that was planned, or not at all; whatever its name, size and row count say."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import ShardError
from rembert_ray.storage import s3
from rembert_ray.storage.listing import list_files
from rembert_ray.storage.location import Location, delete, locate
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.storage.put import put_new
from rembert_ray.storage.ranges import FileState, opened
from rembert_ray.storage.s3 import ObjectChangedError


def table(seed: int, n_rows: int = 50_000) -> pa.Table:
    return pa.table({"v": np.random.default_rng(seed).integers(0, 2**62, n_rows)})


def data_of(content: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(content, target, use_dictionary=False, compression="none", row_group_size=10_000)
    return target.getvalue()


def replace(target: Location, data: bytes) -> None:
    delete(target)
    put_new(target, data)


@pytest.fixture
def target(store: Location) -> Location:
    put_new(store.child("x.parquet"), data_of(table(0)))
    return store.child("x.parquet")


def planned(target: Location) -> FileState:
    [file] = list_files(target.parent)
    return file.size_bytes, file.version


def test_the_planned_file_is_read(target: Location) -> None:
    assert read_rows(target, 5000, 10_000, planned=planned(target)).equals(table(0).slice(5000, 10_000))
    assert read_footer(target, planned(target)).num_rows == 50_000


@pytest.mark.parametrize("n_rows", [50_000, 60_000, 40_000], ids=["other", "longer", "shorter"])
def test_another_file_of_the_same_name_is_refused(target: Location, n_rows: int) -> None:
    state = planned(target)
    replace(target, data_of(table(1, n_rows)))
    with pytest.raises(ShardError, match=r"x\.parquet, rows 0 to 10: it changed: .*when it was planned;.*restore it"):
        read_rows(target, 0, 10, planned=state)
    with pytest.raises(ShardError, match="it changed"):
        read_footer(target, state)
    assert read_rows(target, 0, 10).num_rows == 10, "nobody asked for a certain version"


def test_a_file_that_vanished_is_refused(target: Location) -> None:
    state = planned(target)
    delete(target)
    with pytest.raises(ShardError, match="the file is gone: restore it, or plan again into a new output"):
        read_rows(target, 0, 10, planned=state)


@pytest.mark.parametrize("n_rows", [50_000, 10_000], ids=["other", "shorter"])
@pytest.mark.parametrize("n_reads", [1, 2], ids=["footer", "pages"])
def test_an_object_that_changes_between_two_requests_is_refused(
    s3_folder: Location, monkeypatch: pytest.MonkeyPatch, n_reads: int, n_rows: int
) -> None:
    target = s3_folder.child("x.parquet")
    put_new(target, data_of(table(0)))
    read, reads = s3.read_range, []

    def changing(path: str, start: int, stop: int, etag: str) -> bytes:
        reads.append(start)
        if len(reads) == n_reads:
            replace(target, data_of(table(1, n_rows)))
        return read(path, start, stop, etag)

    monkeypatch.setattr(s3, "read_range", changing)
    with pytest.raises(ShardError, match=r"rows 0 to 50000: (ETag .* before, .* now|it ends before)"):
        read_rows(target, 0, 50_000, budget_s=5)
    assert len(reads) <= n_reads + 3, "it was not tried again as if the store had failed"


def read_and_change(path: Path, data: bytes, *, fails: bool) -> None:
    """Read the file as pyarrow does, while somebody writes into it."""
    with opened(locate(str(path)), state_of(path)) as name:
        assert Path(str(name)).read_bytes() == b"before"
        path.write_bytes(data)
        os.utime(path, ns=(0, 0))
        if fails:
            raise ValueError("bytes that make no sense, because they changed")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("data", [b"behind", b"longer", b"short"])
def test_a_local_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path, data: bytes, fails: bool) -> None:
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(ObjectChangedError, match=r"6 bytes, version \d+ when it was planned; \d bytes, version 0 now"):
        read_and_change(tmp_path / "x", data, fails=fails)


def test_a_local_file_that_loses_its_name_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")
    with opened(locate(str(path)), state_of(path)) as name:
        (tmp_path / "y").write_bytes(b"behind")
        (tmp_path / "y").replace(path)
        assert Path(str(name)).read_bytes() == b"before"


def state_of(path: Path) -> FileState:
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)


def test_versions_that_nobody_knows_are_not_compared(tmp_path: Path) -> None:
    pq.write_table(table(0, 10), tmp_path / "x.parquet")
    state: Any = ((tmp_path / "x.parquet").stat().st_size, "")
    assert read_rows(locate(str(tmp_path / "x.parquet")), 0, 10, planned=state).num_rows == 10
