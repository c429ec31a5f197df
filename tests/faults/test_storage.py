"""Whole jobs whose S3 breaks: every driver and worker talks to the store through the fault proxy."""

from __future__ import annotations

import pytest

from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows
from tests.servers.fault_proxy import Fault, FaultProxy

KINDS = ["status:503", "error:503:SlowDown", "status:500", "reset", "truncate", "lose_reply", "slow:2000"]
PARTS = "PUT .*/out/part-"


pytestmark = pytest.mark.parametrize("store", ["s3"], indirect=True)


def test_requests_that_break_at_random_change_nothing(job: FaultJob, proxy: FaultProxy, expected) -> None:
    """5 % of all requests, of every kind in turn."""
    share = 1 - 0.95 ** (1 / len(KINDS))
    proxy.faults.extend(Fault(".", -1, kind, share=share) for kind in KINDS)
    proxy.faults.append(Fault("^GET /[^?]*/corpus/", -1, "flip", share=0.05))
    # A flipped bit costs an attempt of its shard, and chance may flip one in three attempts running.
    code, shown = job.run("limits.attempts=10")
    n_broken = len(proxy.broken)
    proxy.faults.clear()
    print(f"{n_broken} of {len(proxy.seen)} requests broken: {sorted({kind for _, kind in proxy.broken})}\n{shown}")
    assert code == 0
    assert n_broken > 5
    assert len(job.parts()) == N_SHARDS
    assert_same_rows(job.rows(), expected)


def test_a_store_that_stays_away_ends_the_run_and_is_resumed(job: FaultJob, proxy: FaultProxy, expected) -> None:
    proxy.faults.append(Fault(PARTS, -1, "error:503:SlowDown", after=5))
    code, shown = job.run("limits.storage_s=3")
    print(shown)
    assert code == 5
    assert "/out/part-" in shown
    assert "Run the same command again when the storage is back" in shown
    proxy.faults.clear()
    n_before = len(job.parts())
    assert 1 <= n_before < N_SHARDS
    assert not job.is_closed()
    code, shown = job.run()
    assert code == 0, shown
    assert f"{n_before} shards are there already" in shown
    assert_same_rows(job.rows(), expected)


def test_the_whole_store_away_from_the_middle_on(job: FaultJob, proxy: FaultProxy) -> None:
    """Status and lease cannot be written either: none of it may hide or delay the first error."""
    proxy.faults.append(Fault(PARTS, 1, "status:503", after=5))
    driver = job.start("limits.storage_s=3")
    job.wait_for_parts(5, driver)
    proxy.faults.append(Fault(".", -1, "status:503"))
    assert driver.end() == 5
    print(driver.shown)
    assert "Run the same command again when the storage is back" in driver.shown


def test_permission_that_is_taken_away_is_named(job: FaultJob, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault(PARTS, -1, "error:403:AccessDenied", after=5))
    code, shown = job.run()
    print(shown)
    assert code == 5
    assert "permission denied (AccessDenied)" in shown
    assert "the policy of the bucket" in shown


def test_a_listing_that_lags_does_not_matter(job: FaultJob, proxy: FaultProxy, expected) -> None:
    proxy.faults.append(Fault("^GET .*list-type=2.*out", -1, "lag:600"))
    code, shown = job.run()
    print(shown)
    assert code == 0
    code, shown = job.run()
    assert code == 0, "work is repeated, its puts are refused, and the first objects adopted"
    assert job.is_closed()
    proxy.faults.clear()
    assert_same_rows(job.rows(), expected)
