"""Runs a job in a process of its own on a Ray of simulated nodes, and watches memory and cores from outside.

Memory is the kernel's high-water mark (VmHWM) of each process, so no peak between two looks is missed; pages of Ray's
object store that a worker has mapped count. It must not know what a job does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.commits import Commits
from benchmarks.texts import ROOT
from benchmarks.timeline import CpuWatch, descendants

LOOK_INTERVAL_S = 0.25
STORE_BYTES = 200 * 1024**2
# What a worker's title holds while it runs a stage -> what a table calls the process.
WORKERS = {"EncodeWorker": "encode", "InferWorker": "infer", "WriteWorker": "write"}
DRIVER = "driver"
MANIFEST = """
task: tag
model: {model}
input: {{path: corpus.parquet, keep: [id]}}
output: {{path: out}}
sharding: {{rows: {rows}}}
resources: {resources}
"""


@contextmanager
def ray_nodes(cpus_of_nodes: Sequence[int], cpus_of_head: int) -> Iterator[dict[str, str]]:
    """A Ray of its own on this machine, with a head and further nodes of so many logical CPUs.

    Yields:
        The environment in which a process finds it.
    """
    folder = tempfile.mkdtemp(prefix="rr-")
    # No auth token in the user's home; workers find this repository.
    own = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT), "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.update(own)
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus_of_head, **options})
    try:
        for n_cpus in cpus_of_nodes:
            cluster.add_node(num_cpus=n_cpus, **options)
        yield {**os.environ, "RAY_ADDRESS": cluster.address}
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class JobRun:
    """What was seen of a job while it ran, and what its output says.

    peak_bytes: the largest high-water mark of the processes of each kind (`DRIVER` and the values of `WORKERS`).
    started, seconds: of the driver's process, from its start to its end.
    """

    commits: Commits
    peak_bytes: dict[str, int]
    cpu: CpuWatch
    started: float
    seconds: float

    @property
    def busy_cores(self) -> float:
        """Cores that Ray, the driver and the workers kept busy while all actors worked, on average."""
        start, end = self.commits.times
        return sum(self.cpu.seconds_by_role(start, end).values()) / (end - start)

    @property
    def first_commit_s(self) -> float:
        """From the start of the driver to the first commit."""
        return self.commits.at[0] - self.started


@dataclass
class PeakWatch:
    """High-water marks of a driver and of the workers below this process, looked at by a thread in a `with` block."""

    driver: int
    peak_bytes: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> PeakWatch:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_INTERVAL_S):
            for pid in descendants(os.getpid()):
                kind = DRIVER if pid == self.driver else kind_of_worker(pid)
                if kind:
                    self.peak_bytes[kind] = max(self.peak_bytes.get(kind, 0), read_peak_bytes(pid))


def write_job(folder: Path, model: str, texts: Sequence[str], shard_rows: int, resources: str) -> Path:
    """A corpus and a manifest of `task: tag` over it, in a new folder; the manifest."""
    folder.mkdir()
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": texts})
    pq.write_table(table, folder / "corpus.parquet", row_group_size=shard_rows)
    manifest = folder / "job.yaml"
    manifest.write_text(MANIFEST.format(model=model, rows=shard_rows, resources=resources))
    return manifest


def run_job(command: Sequence[str], manifest: Path, environment: Mapping[str, str], *further: str) -> JobRun:
    """Run `python -m <command> <manifest> <further>` and watch it; the workers of this process's Ray are its workers.

    Raises:
        SystemExit: it fails; its last lines are shown.
    """
    arguments = [sys.executable, "-m", *command, str(manifest), *further]
    started = time.time()
    child = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with CpuWatch() as cpu, PeakWatch(child.pid) as peaks:
        shown, _ = child.communicate()
    seconds = time.time() - started
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}:\n{shown.decode()[-4000:]}")
    return JobRun(Commits.of(manifest.parent / "out"), peaks.peak_bytes, cpu, started, seconds)


def kind_of_worker(pid: int) -> str | None:
    """The value of `WORKERS` for a process that is running a stage now."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return next((kind for name, kind in WORKERS.items() if title.startswith("ray::") and name in title), None)


def read_peak_bytes(pid: int) -> int:
    """The largest resident size that a process ever had; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
