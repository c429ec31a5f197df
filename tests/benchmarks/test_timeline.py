"""What a job's objects say of its time: work, waits between, the last commit."""

from __future__ import annotations

import pytest

from benchmarks.timeline import CpuWatch, Timeline, Work


def work(began: float, ended: float, worker: str = "a") -> Work:
    return Work(began, ended, worker)


def test_waits_are_what_is_not_work():
    stages = {"encode": [work(100, 101), work(101, 102)], "infer": [work(103, 106), work(107, 109)], "write": []}
    timeline = Timeline(stages, committed=[106.5, 110.0], n_tokens=5, forward_s=4.0)
    assert (timeline.began, timeline.seconds) == (100, 10)
    assert timeline.busy_s("infer") == 5
    assert timeline.waits_s("infer") == (3, 1, 1)
    assert timeline.waits_s("encode") == (0, 0, 8)


def test_waits_of_several_workers_are_their_mean():
    stages = {"encode": [work(0, 1)], "infer": [work(1, 5, "a"), work(2, 8, "b"), work(6, 9, "a")]}
    timeline = Timeline(stages, committed=[10.0], n_tokens=5, forward_s=4.0)
    assert timeline.n_workers("infer") == 2
    before, between, after = timeline.waits_s("infer")
    assert (before, between, after) == (1.5, 0.5, 1.5)
    assert before + between + after + timeline.busy_s("infer") / 2 == timeline.seconds


def test_cpu_seconds_between_two_moments_are_interpolated():
    watch = CpuWatch()
    watch.samples[1] = [(10.0, 1.0), (20.0, 6.0)]
    watch.samples[2] = [(16.0, 0.5), (18.0, 1.5)]
    watch.roles.update({1: "driver", 2: "infer"})
    assert watch.seconds_by_role(12.0, 20.0) == pytest.approx({"driver": 4.0, "infer": 1.5})
