"""A driver that is stopped with the lease in hand and wakes up when another run has taken over."""

from __future__ import annotations

import signal
import sys

from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows

# Two runs must fit on the cluster: the workers of the first go on while its driver sleeps.
SMALL = ("resources.actors=1", "resources.encoders=1", "sharding.rows=40")
STALE_SOON = (sys.executable, "-m", "tests.faults.stale_soon")


def test_a_driver_that_slept_too_long_is_taken_over_and_gives_up(job: FaultJob, expected) -> None:
    zombie = job.start(*SMALL, prefix=STALE_SOON)
    job.wait_for_parts(2, zombie)
    zombie.process.send_signal(signal.SIGSTOP)
    successor = job.start(*SMALL, prefix=STALE_SOON)
    if successor.end() == 75:
        # It came before the two seconds were over.
        assert "if it is dead, run this command again" in successor.shown
        successor = job.start(*SMALL, prefix=STALE_SOON)
    assert successor.end() == 0, successor.shown
    assert len(job.parts()) == N_SHARDS
    before = job.objects()
    zombie.process.send_signal(signal.SIGCONT)
    assert zombie.end() == 75
    assert "has taken over the lease" in zombie.shown
    assert job.objects() == before
    assert job.is_closed()
    assert_same_rows(job.rows(), expected)
