"""The process dies at every step of a commit, twice in a row: the object is whole or absent, and made once in the end.

Also stopped at these steps and woken after another has done the work; and lost replies, for three writers at a time.
"""

from __future__ import annotations

import io
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rembert_ray.plan import freeze_plan, load_plan
from rembert_ray.storage.commit import commit_part, list_parts
from rembert_ray.storage.digest import content_digest
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, read_bytes
from tests.conftest import write_corpus
from tests.faults.dying import BEFORE_RECEIPT, HALF_WRITTEN, TABLE, part_of, start, wait_until_stopped
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.test_plan import needs, plan_of

NAME = part_of("").name

# step -> is the object there afterwards?
BOTH = {"before encoding": False, "after encoding": False, BEFORE_RECEIPT: True}
LOCAL = {
    HALF_WRITTEN: False,
    "temporary file written, not synced": False,
    "temporary file complete": False,
    "name given, temporary file still there": True,
    "name given, folder not synced": True,
}
S3 = {"before the put": False, "reply lost": True, "after the put": True, "before the read-back": True}


def assert_whole(output: Location) -> None:
    """Readable to its last page, with the rows that were meant."""
    table = pq.read_table(io.BytesIO(read_bytes(output.child(NAME))), page_checksum_verification=True)
    assert content_digest(table) == content_digest(TABLE)


@pytest.mark.parametrize(
    ("store", "step", "is_there"),
    [(store, step, there) for store in ("local", "s3") for step, there in BOTH.items()]
    + [("local", step, there) for step, there in LOCAL.items()]
    + [("s3", step, there) for step, there in S3.items()],
    indirect=["store"],
)
def test_a_death_leaves_the_object_whole_or_absent(
    store: Location, step: str, is_there: bool, request: pytest.FixtureRequest
) -> None:
    if step in {"reply lost", "before the read-back"}:
        request.getfixturevalue("faults").faults.append(Fault("^PUT", 2, "lose_reply"))
    for death in range(2):
        process = start(store, f"dead-{death}", step)
        process.communicate(timeout=120)
        # Once the object is there, an attempt that comes to the same step again may not get so far.
        assert process.returncode in {-signal.SIGKILL, -signal.SIGXFSZ} or (death and is_there)
        assert list_names(store, "part-") == [NAME] * is_there
        if is_there:
            assert_whole(store)
    end = commit_part(store, part_of("alive"), TABLE, {})
    assert (end.outcome, end.attempt, end.differs) == (
        ("adopted", "dead-0", False) if is_there else ("written", "alive", False)
    )
    assert list_parts(store, "0123abcd").tolist() == [7]
    assert_whole(store)


@pytest.mark.parametrize(
    ("store", "step", "is_there"),
    [
        ("local", "temporary file complete", False),
        ("local", "name given, temporary file still there", True),
        ("s3", "before the put", False),
        ("s3", "after the put", True),
    ],
    indirect=["store"],
)
def test_a_death_while_the_plan_is_frozen_leaves_one_plan(
    store: Location, step: str, is_there: bool, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus" / "a.parquet", ["text"] * 6).parent
    for death in range(2):
        process = start(store, f"plan:{corpus}", step)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL or (death and is_there)
        assert (load_plan(store) is not None) == is_there
    # Other shards by now: what is stored counts.
    mine = plan_of(corpus, needs(max_rows=2))
    assert (freeze_plan(store, mine).plan_id == mine.plan_id) != is_there
    assert freeze_plan(store, mine).n_shards == (1 if is_there else 3)


@pytest.mark.parametrize(
    ("store", "step"), [("local", "temporary file complete"), ("s3", "before the put")], indirect=["store"]
)
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_zombie_that_wakes_up_late_adopts(store: Location, step: str, attempt: int) -> None:
    zombie = start(store, f"zombie-{attempt}", step, signal.SIGSTOP)
    wait_until_stopped(zombie)
    assert list_names(store, "part-") == []
    assert start(store, "next").communicate(timeout=120)[0] == "written next False\n"
    before = read_bytes(store.child(NAME))
    zombie.send_signal(signal.SIGCONT)
    assert zombie.communicate(timeout=120)[0] == "adopted next False\n"
    assert read_bytes(store.child(NAME)) == before
    assert list_names(store) == [NAME]


def test_lost_replies_and_three_writers_at_a_time_leave_each_object_once(
    faults: FaultProxy, s3_folder: Location
) -> None:
    faults.faults.append(Fault("^PUT", -1, "lose_reply", share=1 / 3))

    def write(job: tuple[int, int]) -> tuple[int, str, str]:
        shard, writer = job
        commit = commit_part(s3_folder, replace(part_of(f"{shard}-{writer}"), shard=shard), TABLE, {})
        assert not commit.differs
        return shard, commit.outcome, commit.attempt

    jobs = [(shard, writer) for shard in range(20) for writer in range(3)]
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(write, jobs))
    assert len(faults.broken) > 5
    assert list_parts(s3_folder, "0123abcd").tolist() == list(range(20))
    for shard in range(20):
        outcomes = [outcome for number, outcome, _ in ends if number == shard]
        assert len({attempt for number, _, attempt in ends if number == shard}) == 1
        assert sum(outcome in {"written", "recovered"} for outcome in outcomes) == 1
