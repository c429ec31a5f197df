"""Two runs at the same moment, and clocks an hour off: one holds the lease, judged by the store's clock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rembert_ray.errors import LeaseHeldError
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import Location
from tests.faults.contender import REPOSITORY, Contender
from tests.faults.jobs import FaultJob

HOLDER = LeaseOwner("elsewhere", 2, "holder")


def test_of_two_processes_at_the_same_moment_one_holds_the_lease(store: Location) -> None:
    contenders = [Contender(f"contender-{number}") for number in range(2)]
    for number in range(20):
        for contender in contenders:
            contender.tell(store.child(f"out-{number}"))
        answers = sorted(contender.hear() for contender in contenders)
        assert answers[1] == "held"
        assert answers[0].startswith("LeaseHeldError: ")
    for contender in contenders:
        contender.end()


@pytest.fixture(params=["+1h", "-1h"])
def clock(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a process whose clock is an hour off."""
    command = ["bash", "tests/servers/faketime.sh", str(REPOSITORY / ".cache" / "faketime")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    if found.returncode:
        pytest.skip(f"no libfaketime: {found.stderr.strip()}")
    library = str(REPOSITORY / found.stdout.split()[-1])
    # Waits would never end: they are counted on the clock that does not jump.
    return {"LD_PRELOAD": library, "FAKETIME": request.param, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
def contender(clock: dict[str, str]) -> Iterator[Contender]:
    contender = Contender("skewed", **clock)
    yield contender
    contender.end()


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_age_is_judged_by_the_clock_of_the_store(store: Location, contender: Contender) -> None:
    fresh, stale = store.child("fresh"), store.child("stale")
    Lease.acquire(fresh, HOLDER, heartbeat=False)
    contender.tell(fresh)
    assert contender.hear().startswith("LeaseHeldError: "), "by its own clock the lease is an hour old"
    Lease.acquire(stale, HOLDER, stale_after_s=60, heartbeat=False)
    (lease,) = Path(stale.path, "_rembert_ray").glob("lease-*")
    os.utime(lease, (lease.stat().st_mtime - 120,) * 2)
    contender.tell(stale)
    assert contender.hear() == "held", "by its own clock the lease is to come only in an hour"


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_store_that_refuses_a_wrong_clock_is_understood(store: Location, contender: Contender) -> None:
    contender.tell(store.child("out"))
    answer = contender.hear()
    assert answer.startswith("StorageError: ")
    assert "the clock of this machine and the clock of the store are too far apart (RequestTimeTooSkewed)" in answer
    # And its own lease is judged by nobody else's clock either.
    Lease.acquire(store.child("out"), HOLDER, heartbeat=False)
    with pytest.raises(LeaseHeldError):
        Lease.acquire(store.child("out"), LeaseOwner("elsewhere", 3, "other"), heartbeat=False)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_run_with_a_wrong_clock_is_told_before_it_starts(job: FaultJob, clock: dict[str, str]) -> None:
    code, shown = job.run(**clock)
    assert code == 2
    assert "output.path: s3://" in shown
    assert "the clock of this machine and the clock of the store are too far apart" in shown
    assert "timedatectl" in shown
