"""kill -9 of drivers, workers and nodes at random instants: the rows are all there, once, as in an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.faults.conftest import Head
from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows, each_store

# Long enough for a kill at any time between the start of the interpreter and the last shard.
RUN_TAKES_S = 20.0
N_WORKER_KILLS = 5


@pytest.fixture
def chance() -> random.Random:
    """Random numbers; the seed is printed when a test fails."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.slow
@each_store(local=3, s3=2)
def test_a_killed_driver_costs_at_most_the_shards_in_flight(job: FaultJob, expected, chance, attempt: int) -> None:
    driver = job.start()
    time.sleep(chance.uniform(0, RUN_TAKES_S))
    if driver.process.poll() is None:
        os.kill(driver.process.pid, signal.SIGKILL)
    driver.end()
    before = job.objects()
    code, shown = job.run()
    assert code == 0, shown
    after = job.objects()
    assert {name: after[name] for name in before} == before, "what was there is not touched"
    assert len(after) == N_SHARDS
    assert job.is_closed()
    assert_same_rows(job.rows(), expected)


@pytest.mark.slow
@each_store(local=1, s3=1)
def test_killed_workers_cost_nothing(job: FaultJob, expected, chance, attempt: int) -> None:
    driver = job.start()
    job.wait_for_parts(1, driver)
    n_kills = 0
    while n_kills < N_WORKER_KILLS and driver.process.poll() is None:
        if pids := job.worker_pids():
            os.kill(chance.choice(pids), signal.SIGKILL)
            n_kills += 1
        time.sleep(chance.uniform(0, 1.5))
    assert driver.end() == 0, driver.shown
    assert n_kills
    assert len(job.parts()) == N_SHARDS
    assert_same_rows(job.rows(), expected)
    assert job.rows()["error"].null_count == len(expected), "no row is blamed for what it did not do"


@pytest.mark.slow
@each_store(local=1, s3=0)
def test_a_lost_node_costs_nothing(job: FaultJob, ray_head: Head, expected, chance, attempt: int) -> None:
    node = ray_head.add_node(n_cpus=4)
    try:
        driver = job.start("resources.actors=4", "resources.encoders=4")
        job.wait_for_parts(chance.randint(1, N_SHARDS // 2), driver)
        os.killpg(node.pid, signal.SIGKILL)
        assert driver.end() == 0, driver.shown
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    assert len(job.parts()) == N_SHARDS
    assert_same_rows(job.rows(), expected)
