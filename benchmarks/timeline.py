"""Where the time of a job went: its stages by what its objects say of themselves, its processes by what Linux says.

Every object's footer holds when each stage began on its shard and how long it took; when the object was committed is
what the file system says. CPU seconds are those of this process and its descendants, in which Ray's own are.
It must not start or steer anything: it looks at a job that runs or has run.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from rembert_ray.storage.location import locate
from rembert_ray.storage.parquet import read_footer_values

SAMPLE_S = 2.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# The first that a command line contains decides; Ray's names for its workers are those of their actors and tasks.
ROLES = {
    "EncodeWorker": "read and encode",
    "InferWorker": "infer",
    "Embedder": "the peer's model",
    "WriteWorker": "decode and commit",
    "ray::": "Ray: other workers",
    "default_worker": "Ray: other workers",
    "raylet": "Ray: raylet, gcs, agents",
    "gcs_server": "Ray: raylet, gcs, agents",
    "/ray/": "Ray: raylet, gcs, agents",
}
DRIVER, OTHER = "driver", "other"


@dataclass(frozen=True)
class Work:
    """One stage at work on one shard: unix seconds, and which process it was."""

    began: float
    ended: float
    worker: str


@dataclass
class Timeline:
    """What the objects of an output say. stages: name -> its work, by begin; committed: when each object was there."""

    stages: dict[str, list[Work]]
    committed: list[float]
    n_tokens: int
    forward_s: float

    @property
    def began(self) -> float:
        """When the first shard was handed out."""
        return self.stages["encode"][0].began

    @property
    def seconds(self) -> float:
        """From then to the last object."""
        return max(self.committed) - self.began

    def busy_s(self, stage: str) -> float:
        """Seconds of work, added over workers."""
        return sum(work.ended - work.began for work in self.stages[stage])

    def n_workers(self, stage: str) -> int:
        """Processes that took part."""
        return len({work.worker for work in self.stages[stage]})

    def waits_s(self, stage: str) -> tuple[float, float, float]:
        """Idle seconds before the first work, between works, and after the last; the mean of the stage's workers."""
        by_worker = defaultdict(list)
        for work in self.stages[stage]:
            by_worker[work.worker].append(work)
        n = len(by_worker)
        before = sum(works[0].began - self.began for works in by_worker.values()) / n
        after = sum(self.began + self.seconds - works[-1].ended for works in by_worker.values()) / n
        return before, self.seconds - before - after - self.busy_s(stage) / n, after


def read_timeline(output: Path) -> Timeline:
    """The timeline of a finished job that wrote to a local folder."""
    stages: dict[str, list[Work]] = {"encode": [], "infer": [], "write": []}
    committed, n_tokens, forward_s = [], 0, 0.0
    for path in output.glob("part-*.parquet"):
        facts = read_footer_values(locate(str(path)))
        began = {name: datetime.fromisoformat(facts[f"{name}_at"]).timestamp() for name in ("read", "infer", "decode")}
        encoded = datetime.fromisoformat(facts["encode_at"]).timestamp() + float(facts["encode_s"])
        inferred = began["infer"] + float(facts["infer_s"])
        # The link that is the commit changes the inode; the bytes were written before.
        there = path.stat().st_ctime
        stages["encode"].append(Work(began["read"], encoded, facts["encoded_at"]))
        stages["infer"].append(Work(began["infer"], inferred, facts["inferred_at"]))
        stages["write"].append(Work(began["decode"], there, "tasks"))
        committed.append(there)
        n_tokens += int(facts["n_tokens"])
        forward_s += float(facts["forward_s"])
    for works in stages.values():
        works.sort(key=lambda work: work.began)
    return Timeline(stages, committed, n_tokens, forward_s)


@dataclass
class CpuWatch:
    """CPU seconds of this process and its descendants, sampled by a thread while the `with` block runs."""

    samples: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    roles: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cpu", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def seconds_by_role(self, began: float, ended: float) -> dict[str, float]:
        """CPU seconds that each role used between two unix times, by `SAMPLE_S`."""
        found: dict[str, float] = defaultdict(float)
        for pid, samples in self.samples.items():
            times, values = np.array(samples).T
            # A process that came later had used nothing before.
            at = np.interp([began, ended], [times[0] - SAMPLE_S, *times], [0.0, *values])
            found[self.roles[pid]] += float(at[1] - at[0])
        return dict(found)

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            for pid in descendants(os.getpid()):
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                self.samples[pid].append((time.time(), (int(fields[11]) + int(fields[12])) / TICKS_PER_S))
                role = DRIVER if pid == os.getpid() else _role(command)
                # A worker has its task's name only while it runs it.
                if self.roles.get(pid) in (None, OTHER, ROLES["ray::"]):
                    self.roles[pid] = role


def _role(command: str) -> str:
    return next((role for part, role in ROLES.items() if part in command), OTHER)


def descendants(root: int) -> list[int]:
    """A process, the processes that it started, those that they started, and so on."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children[parent].append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found
