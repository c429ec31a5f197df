"""What a job's time is made of, as tables: its stages, its processes, and what it takes longer than the forward alone.

It must not measure anything; see `benchmarks.timeline`.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.table import print_table
from benchmarks.timeline import Timeline


@dataclass
class Job:
    """What a run of ours or of the peer took. seconds: without the start; whole_s: with the start of the workers."""

    seconds: float
    whole_s: float
    timeline: Timeline | None
    cpu_s: dict[str, float]


def show_stages(job: Job, n_cores: int) -> None:
    """Busy, idle and CPU seconds, stage by stage."""
    assert job.timeline is not None
    rows, cpu_s = [], dict(job.cpu_s)
    names = {"encode": "read and encode", "infer": "infer", "write": "decode and commit"}
    for stage, name in names.items():
        busy, n_workers = job.timeline.busy_s(stage), job.timeline.n_workers(stage)
        idle = [f"{value:.2f}" for value in job.timeline.waits_s(stage)]
        share = f"{busy / n_workers / job.seconds:.1%}"
        rows.append([name, str(n_workers), f"{busy:.2f}", share, *idle, *of_cores(cpu_s.pop(name, 0.0), job, n_cores)])
    for name, seconds in sorted(cpu_s.items(), key=lambda item: -item[1]):
        rows.append([name, *[""] * 5, *of_cores(seconds, job, n_cores)])
    rows.append(["all", *[""] * 5, *of_cores(sum(job.cpu_s.values()), job, n_cores)])
    idle_columns = ("idle s: before its first shard", "between shards", "after its last")
    print_table(("stage", "workers", "busy s", "busy", *idle_columns, "CPU s", f"of {n_cores} cores"), rows)


def of_cores(cpu_s: float, job: Job, n_cores: int) -> tuple[str, str]:
    """CPU seconds, and their share of what the cores have in the job's time."""
    return f"{cpu_s:.2f}", f"{cpu_s / (n_cores * job.seconds):.1%}"


def show_shares(job: Job, alone_s: float) -> None:
    """What the job's time is made of, the forward alone first."""
    assert job.timeline is not None
    before, between, after = job.timeline.waits_s("infer")
    busy = job.seconds - before - between - after
    parts = {
        "the forward alone": alone_s,
        "infer takes longer than that: other processes on its cores": busy - alone_s,
        "infer waits for its first shard (and loads its model)": before,
        "infer waits between shards": between,
        "after its last shard": after,
        "**first shard handed out to last object**": job.seconds,
    }
    rows = [[name, f"{seconds:.2f}", f"{seconds / job.seconds:.1%}"] for name, seconds in parts.items()]
    share = f"{alone_s / job.whole_s:.1%} is the forward"
    print_table(("", "s", "share"), [*rows, ["with the start of the workers", f"{job.whole_s:.2f}", share]])
