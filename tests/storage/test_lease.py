"""One run per output: contenders, silence, zombies. No test waits for real time to pass."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from rembert_ray.errors import LeaseHeldError, StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.lease import Lease, LeaseOwner, lease_holder, store_age_s
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, locate, read_bytes
from rembert_ray.storage.put import put_new
from tests.servers.fault_proxy import Fault

ONE, TWO, THREE = (LeaseOwner("host", pid, f"run-{pid}") for pid in (1, 2, 3))


def silent_for(seconds: float) -> Any:
    """The holder's age as the store would tell it."""
    return lambda _: seconds


def take(store: Location, owner: LeaseOwner, age_s: float = 0.0, stale_after_s: float = 60.0) -> Lease:
    return Lease.acquire(store, owner, stale_after_s, heartbeat=False, measure_age_s=silent_for(age_s))


def numbers(store: Location) -> list[str]:
    return list_names(store.child("_rembert_ray"), "lease-")


def test_the_second_run_is_told_who_holds_the_lease(store: Location) -> None:
    take(store, ONE)
    with pytest.raises(
        LeaseHeldError, match=r"run run-1 \(process 1 on host\) writes here since .*last seen 5 s ago.*in 56 s"
    ):
        take(store, TWO, age_s=5)


def test_a_released_lease_is_free_at_once(store: Location) -> None:
    with take(store, ONE):
        pass
    lease = take(store, TWO)
    lease.check()
    lease.release()
    lease.release()
    assert len(numbers(store)) == 1


def test_a_silent_holder_is_taken_over_and_finds_out(store: Location) -> None:
    zombie = take(store, ONE)
    lease = take(store, TWO, age_s=61)
    lease.check()
    assert not zombie.lost
    with pytest.raises(LeaseHeldError, match=r"run run-2 \(process 2 on host\) has taken over"):
        zombie.beat()
    assert zombie.lost
    with pytest.raises(LeaseHeldError):
        zombie.check()
    zombie.release()
    lease.beat()
    assert not lease.lost


def test_how_long_is_too_long_is_what_the_holder_promised(store: Location) -> None:
    take(store, ONE, stale_after_s=600)
    with pytest.raises(LeaseHeldError):
        take(store, TWO, age_s=61, stale_after_s=1)


def test_a_zombie_that_wakes_after_its_number_was_pruned_loses(store: Location) -> None:
    """The number after the zombie's own was created and pruned by the new holder, so it can be created again."""
    zombie = take(store, ONE)
    lease = take(store, TWO, age_s=61)
    for _ in range(6):
        lease.beat()
    before = numbers(store)
    assert len(before) == 3
    with pytest.raises(LeaseHeldError, match="run-2"):
        zombie.beat()
    assert numbers(store) == before
    lease.beat()
    assert not lease.lost


def test_heartbeats_keep_few_objects(store: Location) -> None:
    lease = take(store, ONE)
    for _ in range(5):
        lease.beat()
    assert numbers(store) == ["lease-000004", "lease-000005", "lease-000006"]


@pytest.mark.parametrize("is_takeover", [False, True])
def test_of_racing_runs_exactly_one_wins(store: Location, is_takeover: bool) -> None:
    if is_takeover:
        take(store, ONE)
    n_threads = 8
    gate = threading.Barrier(n_threads)

    def race(index: int) -> Lease | None:
        gate.wait()
        try:
            # A lease that a racer holds is fresh: only the first number is old.
            return Lease.acquire(
                store,
                LeaseOwner("host", index, f"racer-{index}"),
                heartbeat=False,
                measure_age_s=lambda location: 61.0 if is_takeover and location.name == "lease-000001" else 0.0,
            )
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(n_threads) as pool:
        held = [lease for lease in pool.map(race, range(n_threads)) if lease is not None]
    assert len(held) == 1
    held[0].beat()


def test_the_thread_renews_and_stops(store: Location) -> None:
    first = numbers(store)
    with Lease.acquire(store, ONE, 0.2) as lease:
        deadline = time.monotonic() + 10
        while numbers(store)[-1:] <= ["lease-000002"] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert numbers(store)[-1] > "lease-000002"
        assert not lease.lost
    after = numbers(store)
    assert first == []
    assert len(after) == 1
    assert "lease-heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_the_thread_finds_out_that_the_lease_is_lost(store: Location) -> None:
    lease = Lease.acquire(store, ONE, 0.4)
    number = int(numbers(store)[-1].removeprefix("lease-"))
    usurper = None
    deadline = time.monotonic() + 10
    while usurper is None and time.monotonic() < deadline:
        try:
            usurper = take(store, TWO, age_s=1, stale_after_s=60)
        except LeaseHeldError:
            continue
    assert usurper is not None
    while not lease.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(LeaseHeldError, match="run-2"):
        lease.check()
    assert number >= 1
    lease.release()
    usurper.beat()


def test_age_is_judged_by_the_clock_of_the_store(store: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    target = store.child("x")
    put_new(target, b"")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    assert -2 <= store_age_s(target) <= 30
    if store.is_local:
        os.utime(target.path, (real() - 500, real() - 500))
        assert 495 <= store_age_s(target) <= 530


def test_a_gateway_that_sends_no_date_is_asked_by_writing(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    target = s3_folder.child("x")
    put_new(target, b"")
    head = s3.head

    def head_without_date(path: str) -> dict[str, Any]:
        reply = head(path)
        reply["ResponseMetadata"]["HTTPHeaders"].pop("date", None)
        return reply

    monkeypatch.setattr(s3, "head", head_without_date)
    assert -2 <= store_age_s(target) <= 30
    assert list_names(s3_folder) == ["x"]


def test_a_lease_in_memory() -> None:
    folder = locate(f"memory://lease-{time.time_ns()}")
    lease = Lease.acquire(folder, ONE, heartbeat=False)
    with pytest.raises(LeaseHeldError, match="run-1"):
        Lease.acquire(folder, TWO, heartbeat=False)
    lease.release()
    Lease.acquire(folder, TWO, heartbeat=False).release()


def test_a_lost_reply_does_not_lose_the_lease(faults: Any, s3_folder: Location) -> None:
    faults.faults.append(Fault("^PUT .*lease-000001", 1, "lose_reply"))
    faults.faults.append(Fault("^PUT .*lease-000002", 1, "lose_reply"))
    lease = take(s3_folder, ONE)
    lease.beat()
    assert not lease.lost
    assert numbers(s3_folder) == ["lease-000001", "lease-000002"]


def test_a_store_that_was_away_loses_nothing_by_itself(faults: Any, s3_folder: Location) -> None:
    lease = take(s3_folder, ONE, stale_after_s=1)
    outage = Fault("^PUT", -1, "status:503")
    faults.faults.append(outage)
    with pytest.raises(StorageError):
        lease.beat()
    assert not lease.lost
    outage.times = 0
    lease.beat()
    lease.check()


def test_an_object_that_is_no_lease_is_named(store: Location) -> None:
    put_new(store.child("_rembert_ray", "lease-000001"), b"{}")
    with pytest.raises(StorageError, match="lease-000001 is not a lease of this version"):
        take(store, ONE)


def test_a_folder_that_was_cleaned_is_taken_again(store: Location) -> None:
    lease = take(store, ONE)
    for name in numbers(store):
        delete(store.child("_rembert_ray", name))
    lease.beat()
    assert numbers(store) == ["lease-000002"]


def test_the_lease_of_a_process_of_this_machine_that_has_ended_is_taken_at_once(tmp_path) -> None:
    code = (
        "import os, sys\n"
        "from rembert_ray.storage.lease import Lease, LeaseOwner\n"
        "from rembert_ray.storage.location import locate\n"
        "Lease.acquire(locate(sys.argv[1]), LeaseOwner.this_process('killed'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=False)
    output = locate(str(tmp_path))
    with Lease.acquire(output, LeaseOwner.this_process("next")) as lease:
        lease.check()
        with pytest.raises(LeaseHeldError, match="run next"):
            Lease.acquire(output, LeaseOwner.this_process("third"))


def test_a_process_that_lives_or_cannot_be_seen_is_not_dead() -> None:
    this = LeaseOwner.this_process("run")
    assert not this.is_dead
    assert replace(this, started="1").is_dead, "the pid belongs to another process by now"
    assert not replace(this, place="another machine", started="1").is_dead
    assert not replace(this, place="", started="").is_dead


@pytest.mark.parametrize("is_released", [False, True])
def test_a_listing_that_lags_neither_loses_nor_hides_the_lease(
    faults: Any, s3_folder: Location, is_released: bool
) -> None:
    faults.faults.append(Fault("^GET .*list-type", -1, "lag:600"))
    lease = take(s3_folder, ONE)
    lease.beat()
    assert not lease.lost
    if is_released:
        lease.release()
        take(s3_folder, TWO).beat()
    else:
        with pytest.raises(LeaseHeldError, match="run-1"):
            take(s3_folder, TWO)


def test_a_lease_with_a_flipped_bit_decides_nothing(store: Location) -> None:
    take(store, ONE)
    location = store.child("_rembert_ray", "lease-000001")
    data = read_bytes(location)
    delete(location)
    put_new(location, data.replace(b'"held"', b'"hele"'))
    with pytest.raises(StorageError, match="lease-000001 is not a lease of this version"):
        take(store, TWO)


def test_who_holds_a_lease_can_be_asked(store: Location) -> None:
    assert lease_holder(store) == ""
    lease = take(store, ONE)
    assert lease_holder(store) == str(ONE)
    assert lease_holder(store, measure_age_s=lambda location: 61.0) == ""
    lease.release()
    assert lease_holder(store) == ""
