"""A finished output, run again, and the manifest changed by one word."""

from __future__ import annotations

from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows


def test_an_output_is_done_once_and_refuses_another_manifest(job: FaultJob, expected) -> None:
    code, shown = job.run()
    assert code == 0
    assert_same_rows(job.rows(), expected)
    before = job.objects()
    assert len(before) == N_SHARDS
    code, shown = job.run()
    assert code == 0
    assert "nothing to do" in shown
    assert job.objects() == before
    code, shown = job.run("head.aggregation=max")
    assert code == 2
    assert "head.aggregation: 'first' -> 'max'" in shown
    assert job.objects() == before
