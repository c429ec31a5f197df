"""Footers of which pyarrow dies: found by fuzzing, refused by a fault, and the process goes on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import Fault, ShardError
from rembert_ray.footers import InputNeeds, scan_footers
from rembert_ray.storage.footer_trial import FooterTrial
from rembert_ray.storage.listing import expand_input
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import TAIL_BYTES, read_footer, read_raw_footer
from rembert_ray.storage.put import put_new

HOSTILE = sorted((Path(__file__).parents[1] / "data" / "hostile").glob("footer_*.parquet"))


def parquet_bytes(**options):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a", None, "b"] * 400}), sink, **options)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_a_footer_that_kills_is_one_file_that_is_refused(path, tmp_path):
    shutil.copy(path, tmp_path / "1.parquet")
    for name in ("0", "2"):
        (tmp_path / f"{name}.parquet").write_bytes(parquet_bytes())
    needs = InputNeeds({"text": "text"}, [], max_rows=100, max_bytes=2**20)
    before, bad, after = scan_footers(expand_input(str(tmp_path)), Location(str(tmp_path)), needs)
    assert isinstance(bad, Fault)
    assert str(bad).startswith(f"{tmp_path}/1.parquet: its footer ends the process that reads it")
    assert before.group_rows == after.group_rows == (1200,)


def test_good_footers_pass_and_a_killed_child_is_replaced(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet_bytes())
    footer = read_raw_footer(Location(str(tmp_path / "a.parquet")))
    with FooterTrial() as trial:
        assert trial.survives(footer)
        os.kill(trial._child.pid, signal.SIGKILL)
        trial._child.wait()
        assert not trial.survives(footer)
        assert trial.survives(footer)
        assert trial.survives(b"no footer at all")
        child = trial._child
    assert child.poll() is not None


@pytest.mark.parametrize("row_group_size", [1200, 1])
def test_a_raw_footer_is_the_footer(store, row_group_size):
    target = store.child("a.parquet")
    data = parquet_bytes(row_group_size=row_group_size)
    put_new(target, data)
    raw = read_raw_footer(target)
    assert (len(raw) > TAIL_BYTES) == (row_group_size == 1)
    assert pq.read_metadata(pa.BufferReader(raw)).equals(read_footer(target))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 100, b"PAR1" + b"\xff\xff\xff\x7fPAR1", b"\xff" * 12])
def test_what_has_no_footer_is_a_shard_error(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ShardError, match="do not end as a Parquet file does"):
        read_raw_footer(Location(str(tmp_path / "a.parquet")))
