"""The search for rows that end, hang or break a stage, with real child processes."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.plan import Shard
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.probation import Probation
from tests.stages.brittle_stage import HANGS, KILLS, LOSES_STORAGE, RAISES, REFUSES, Brittle

N_ROWS = 40


def try_rows(faults: dict[int, int], patience_s: float = 60, **options) -> pa.Table:
    numbers = [faults.get(row, row) for row in range(N_ROWS)]
    envelope = Envelope(Shard(3, "file", 0, N_ROWS, {}, "plan"), table=pa.table({"number": numbers}))
    done = Probation(Brittle, None, patience_s, **options).run(envelope)
    assert done.facts["made_by"] != os.getpid()
    assert done.failure is None
    return done.table


def errors_of(table: pa.Table) -> dict[int, str]:
    return {row: error for row, error in enumerate(table["error"].to_pylist()) if error is not None}


def test_a_harmless_shard_comes_out_as_it_always_does():
    table = try_rows({})
    assert table["number"].to_pylist() == [2 * row for row in range(N_ROWS)]
    assert errors_of(table) == {}


def test_each_row_to_blame_is_found_and_the_others_are_right():
    table = try_rows({0: KILLS, 17: KILLS, 18: RAISES, N_ROWS - 1: KILLS})
    segfault = "ended its process in brittle (SIGSEGV)"
    raised = "unexpected: ZeroDivisionError: nobody thought of it (in brittle)"
    assert errors_of(table) == {0: segfault, 17: segfault, 18: raised, N_ROWS - 1: segfault}
    good = [2 * row if row not in errors_of(table) else None for row in range(N_ROWS)]
    assert table["number"].to_pylist() == good


def test_a_row_that_never_ends_is_found():
    assert errors_of(try_rows({21: HANGS}, patience_s=6)) == {21: "ended its process in brittle (silent for 6 s)"}


def test_a_search_that_takes_too_long_is_given_up():
    with pytest.raises(ShardError, match="took too long"):
        try_rows(dict.fromkeys(range(N_ROWS), HANGS), patience_s=0.5)


def test_a_stage_that_cannot_leave_out_rows_gives_the_shard_up():
    with pytest.raises(ShardError, match=r"SIGSEGV\), and no single row is to blame"):
        try_rows({5: KILLS}, can_set_aside=False)


def test_what_the_stage_refuses_is_refused_at_once():
    with pytest.raises(ShardError, match=r"^these rows cannot be had$"):
        try_rows({5: REFUSES})


def test_a_store_that_gave_out_concerns_the_whole_job():
    with pytest.raises(StorageError, match="the store is away"):
        try_rows({5: LOSES_STORAGE})
