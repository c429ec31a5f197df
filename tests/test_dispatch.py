"""Which shards run when: fresh ones first, failed ones again, suspects last, and an end to all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray import dispatch
from rembert_ray.dispatch import Dispatch


def waves_of(todo: Dispatch, outcome) -> list[tuple[list[int], bool]]:
    """Run to the end; `outcome(shard, on_probation)` is None, a reason, a suspicion `?reason`, or `lost`."""
    seen = []
    while (wave := todo.next_wave()) is not None:
        seen.append((wave.shards.tolist(), wave.on_probation))
        for shard in wave.shards.tolist():
            what = outcome(shard, wave.on_probation)
            if what == "lost":
                if not todo.lose_workers():
                    return seen
                break
            if what is None:
                todo.finish(shard)
            else:
                todo.fail(shard, what.removeprefix("?"), is_suspect=what.startswith("?"))
        assert len(seen) < 500, "no end"
    return seen


@pytest.fixture(autouse=True)
def small_waves(monkeypatch):
    monkeypatch.setattr(dispatch, "WAVE_SHARDS", 4)


def test_waves_are_bounded_and_in_order():
    todo = Dispatch(np.arange(10), attempts=3)
    assert waves_of(todo, lambda *_: None) == [([0, 1, 2, 3], False), ([4, 5, 6, 7], False), ([8, 9], False)]
    assert todo.failures == {}


def test_a_failing_shard_is_tried_so_often_after_the_fresh_ones_and_given_up():
    todo = Dispatch(np.arange(6), attempts=3)
    seen = waves_of(todo, lambda shard, _: "corrupt" if shard == 1 else None)
    assert seen == [([0, 1, 2, 3], False), ([4, 5], False), ([1], False), ([1], False)]
    assert todo.failures == {1: "corrupt"}


def test_suspects_come_last_and_are_tried_once_on_probation():
    todo = Dispatch(np.arange(6), attempts=3)
    seen = waves_of(todo, lambda shard, on_probation: "?died" if shard in (0, 4) else None)
    assert seen == [([0, 1, 2, 3], False), ([4, 5], False), ([0, 4], True)]
    assert todo.failures == {0: "died", 4: "died"}


def test_a_suspect_that_gets_through_on_probation_leaves_no_trace():
    todo = Dispatch(np.arange(3), attempts=3)
    seen = waves_of(todo, lambda shard, on_probation: None if on_probation else "?died")
    assert seen[-1] == ([0, 1, 2], True)
    assert todo.failures == {}


def test_a_shard_that_takes_workers_along_is_found_and_given_up():
    todo = Dispatch(np.arange(4), attempts=2)
    seen = waves_of(todo, lambda shard, _: "lost" if shard == 2 else None)
    assert seen[-1][1], "alone, with children"
    assert list(todo.failures) == [2]
    assert "Ray lost the workers" in todo.failures[2]


def test_a_cluster_that_loses_every_worker_is_no_fault_of_the_shards():
    todo = Dispatch(np.arange(4), attempts=2)
    waves_of(todo, lambda *_: "lost")
    assert not todo.lose_workers()
    assert len(todo.failures) < 4


@given(
    st.integers(0, 30),
    st.integers(1, 4),
    st.lists(st.sampled_from([None, None, None, "bad", "?suspect", "lost"]), max_size=200),
)
def test_every_shard_is_finished_or_given_up_whatever_happens(n_shards, attempts, outcomes):
    todo = Dispatch(np.arange(n_shards), attempts)
    left = iter(outcomes)
    finished: set[int] = set()

    def outcome(shard, _):
        what = next(left, None)
        if what is None:
            assert shard not in finished, "made twice"
            finished.add(shard)
        return what

    waves_of(todo, outcome)
    if todo.next_wave() is None:
        assert finished.isdisjoint(todo.failures)
        assert finished | set(todo.failures) == set(range(n_shards))
