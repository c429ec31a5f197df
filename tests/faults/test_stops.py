"""SIGTERM, and a job without progress: the exit codes 75 and 6, the lease given back, and a run that resumes."""

from __future__ import annotations

import signal

import pytest

from rembert_ray.storage.location import read_bytes
from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows, each_store


@pytest.mark.slow
@each_store(local=2, s3=2)
def test_sigterm_ends_with_75_and_the_next_run_goes_on(job: FaultJob, expected, attempt: int) -> None:
    driver = job.start()
    n_parts = 5 * (attempt % 2)
    if n_parts:
        job.wait_for_parts(n_parts, driver)
    else:
        job.wait_for_event("plan", driver)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.end(60) == 75, driver.shown
    assert "stopped by SIGTERM" in driver.shown
    before = job.objects()
    if n_parts:
        assert job.control("_rembert_ray", "status.json")["exit_code"] == 75
    code, shown = job.run()
    assert code == 0, shown
    after = job.objects()
    assert {name: after[name] for name in before} == before
    assert len(after) == N_SHARDS
    assert_same_rows(job.rows(), expected)


@pytest.mark.slow
@each_store(local=1, s3=0)
def test_no_progress_ends_with_6_and_leaves_the_stacks(job: FaultJob, expected, attempt: int) -> None:
    code, shown = job.run("limits.stall_s=75", module="tests.faults.broken_tag", BROKEN_LOAD="1")
    assert code == 6, shown
    status = job.control("_rembert_ray", "status.json")
    assert (status["exit_code"], status["state"]) == (6, "stopped")
    stacks = read_bytes(job.output.child("_rembert_ray", f"stacks-{status['run']}.txt")).decode()
    assert "in _leave_stacks" in stacks, "the driver's"
    assert "in load_model" in stacks, "the worker's that hangs"
    code, shown = job.run()
    assert code == 0, shown
    assert_same_rows(job.rows(), expected)
