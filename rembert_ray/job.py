"""A job from manifest to `_SUCCESS`: the one page to read first.

check    every fault of manifest, model, input and output, before Ray starts          -> exit 2
lease    one run at a time writes to an output                                         -> exit 75 if it is held
plan     the stored plan, or a new one, stored before the first shard                  (plan.py)
resume   planned shards minus the objects that are there; nothing left: say so, done   (storage/commit.py)
run      waves of shards through the pipeline; each comes back as a receipt            (pipeline.py)
finish   failed shards are recorded                                                    -> exit 3
         all objects there: `_SUCCESS`, a summary and the next command                 -> exit 0
"""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import numpy.typing as npt
from rich.console import Console

from rembert_ray import cluster
from rembert_ray.check import CheckedJob, check_job
from rembert_ray.cluster import Pools
from rembert_ray.errors import RembertRayError, StalledError, StoppedError
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import Plan, describe, freeze_plan
from rembert_ray.report import status, summary
from rembert_ray.report.progress import ProgressLine
from rembert_ray.report.tally import Tally
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.commit import list_parts
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.put import put_replacing, remove_stale_temp_files

WAVE_SHARDS = 1024
STATUS_INTERVAL_S = 10.0
TEMP_FILES_STALE_S = 3600.0
EXIT_DONE, EXIT_QUARANTINED = 0, 3


def run(manifest_url: str, overrides: tuple[str, ...] = (), console: Console | None = None) -> int:
    """Run a manifest to its end and return the exit code 0 or 3.

    Raises:
        RembertRayError: the job cannot be run or was interrupted; the error carries its exit code.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    manifest = load_manifest(manifest_url, overrides)
    checked = check_job(manifest)
    run_id = secrets.token_hex(6)
    with Lease.acquire(checked.output, LeaseOwner.this_process(run_id)) as lease:
        plan = freeze_plan(checked.output, checked.plan)
        console.print(describe(plan), markup=False)
        done = list_parts(checked.output, plan.fingerprint.digest)
        job = Job(checked, plan, run_id, lease, console, done)
        if len(job.missing) == 0 and status.is_success(checked.output):
            console.print(summary.already_done(checked.output, plan), markup=False)
            return EXIT_DONE
        return job.run()


@dataclass
class Job:
    """One run of a checked job, with the lease in hand."""

    checked: CheckedJob
    plan: Plan
    run_id: str
    lease: Lease
    console: Console
    done: npt.NDArray[np.int64]
    failures: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.missing = np.setdiff1d(np.arange(self.plan.n_shards, dtype=np.int64), self.done)
        rows = self.plan.shards["n_rows"].to_numpy()
        n_before = self.plan.n_shards - len(self.missing)
        self._planned_bytes = self.plan.shards["bytes"].to_numpy()
        self.tally = Tally(
            self.plan.n_shards,
            self.plan.n_rows,
            int(self._planned_bytes.sum()),
            n_before,
            int(rows.sum() - rows[self.missing].sum()),
            int(self._planned_bytes.sum() - self._planned_bytes[self.missing].sum()),
        )
        self._status_at = float("-inf")

    def run(self) -> int:
        """Run what is missing and close the output; the exit code."""
        remove_stale_temp_files(self.checked.output, TEMP_FILES_STALE_S)
        try:
            if len(self.missing):
                self._run_missing()
            exit_code = self._finish()
        except RembertRayError as error:
            self._write_status("stopped", error.exit_code, str(error))
            raise
        return exit_code

    def _run_missing(self) -> None:
        if self.tally.n_shards_before:
            self.console.print(f"resume      {self.tally.n_shards_before} shards are there already", markup=False)
        cluster.connect()
        pools = cluster.size_pools(self.checked.manifest)
        self.console.print(f"workers     {pools}", markup=False)
        if n_gpus := cluster.unused_gpus(self.checked.manifest):
            self.console.print(f"note        {n_gpus} GPUs are idle: set resources.gpus_per_actor to use them")
        spec = self._spec(pools.n_threads)
        self.tally.started = time.monotonic()
        with _signals_raise(), ProgressLine(self.tally, self.console) as line:
            self._run_waves(spec, pools, line)

    def _run_waves(self, spec: JobSpec, pools: Pools, line: ProgressLine) -> None:
        """Bounded waves of shards.

        A shard that fails is tried again in a later wave, `limits.attempts` times in all. When Ray gives up on a
        worker the rest of the wave is started anew, as long as shards get finished in between.
        """
        from rembert_ray.pipeline import Receipts, WorkersLostError, build

        attempts = self.checked.manifest.limits.attempts
        tried: Counter[int] = Counter()
        n_deaths = 0
        todo = self.missing
        while len(todo):
            wave = todo[:WAVE_SHARDS]
            shards = list(self.plan.iter_shards(wave))
            finished: set[int] = set()
            try:
                for receipt in self._watch(Receipts(build(shards, spec, pools, attempts)), line):
                    index = receipt.shard.index
                    if receipt.failure is None:
                        finished.add(index)
                        self.failures.pop(index, None)
                        self.tally.add(receipt.facts, int(self._planned_bytes[index]))
                        continue
                    tried[index] += 1
                    self.failures[index] = receipt.failure
            except WorkersLostError as error:
                n_deaths = 1 if finished else n_deaths + 1
                if n_deaths >= attempts:
                    raise
                self.console.print(f"retry       {error}", markup=False)
            given_up = {index for index, n_tries in tried.items() if n_tries >= attempts}
            again = [int(index) for index in wave if index not in finished and index not in given_up]
            todo = np.concatenate([todo[WAVE_SHARDS:], np.array(again, dtype=np.int64)])
            self.tally.shards_failed = len(given_up & self.failures.keys())

    def _watch(self, receipts: Iterable[Envelope | None], line: ProgressLine) -> Iterator[Envelope]:
        """Pass receipts on; between them keep the line, the status and the lease, and look for a stall."""
        stall_s = self.checked.manifest.limits.stall_s
        last = time.monotonic()
        for receipt in receipts:
            self.lease.check()
            if receipt is not None:
                last = time.monotonic()
                yield receipt
            elif time.monotonic() - last > stall_s:
                raise StalledError(
                    f"no shard finished for {stall_s:g} s (limits.stall_s). The cluster may lack what the workers ask "
                    "for, or a worker hangs: look at `ray status` and `ray stack`, then run the same command to resume"
                )
            line.show()
            if time.monotonic() - self._status_at > STATUS_INTERVAL_S:
                self._write_status("running")

    def _finish(self) -> int:
        output, plan = self.checked.output, self.plan
        for index, reason in sorted(self.failures.items()):
            shard = plan.shard(index)
            record = {"shard": index, "source": shard.url, "row_start": shard.row_start, "n_rows": shard.n_rows}
            record |= {"reason": reason, "run": self.run_id}
            status.quarantine(output, index, record)
        there = list_parts(output, plan.fingerprint.digest)
        status.release_quarantined(output, set(there.tolist()))
        is_complete = np.array_equal(there, np.arange(plan.n_shards))
        share = self.tally.rows_with_error / max(self.tally.rows_done, 1)
        over_budget = share > self.checked.manifest.limits.errors
        exit_code = EXIT_DONE if is_complete and not over_budget else EXIT_QUARANTINED
        if exit_code == EXIT_DONE:
            content = {"plan": plan.plan_id, "fingerprint": plan.fingerprint.digest, "run": self.run_id}
            counts = {"rows_in": plan.n_rows, "rows_out": plan.n_rows, "shards": plan.n_shards}
            text = json.dumps(content | counts | {"last_run": self.tally.to_dict()}, indent=1)
            put_replacing(output.child(status.SUCCESS), text.encode())
        self._write_status("done" if exit_code == EXIT_DONE else "incomplete", exit_code)
        for text in summary.describe_end(self.checked, plan, self.tally, self.failures, over_budget):
            self.console.print(text, markup=False)
        return exit_code

    def _spec(self, n_threads: int) -> JobSpec:
        checked = self.checked
        batch_tokens = checked.manifest.resources.batch_tokens
        return JobSpec(
            task=checked.task,
            config=checked.config,
            model=checked.model,
            output=checked.output,
            columns=checked.columns,
            kept=self.plan.schema,
            renamed=checked.manifest.input.rename,
            windows=checked.windows,
            fingerprint=self.plan.fingerprint.digest,
            plan_id=self.plan.plan_id,
            run_id=self.run_id,
            precision=checked.precision,
            runs_on_gpu=checked.manifest.resources.gpus_per_actor > 0,
            batch_tokens=None if batch_tokens == "auto" else batch_tokens,
            n_threads=n_threads,
            footer={"task": checked.manifest.task},
        )

    def _write_status(self, state: str, exit_code: int | None = None, message: str = "") -> None:
        self._status_at = time.monotonic()
        values = {"state": state, "exit_code": exit_code, "message": message, "run": self.run_id}
        status.write(self.checked.output, values | self.tally.to_dict())


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT end the run as `StoppedError`. To be entered after Ray's start, which sets its own."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise StoppedError(f"stopped by {name}; what is committed stays, run the same command to resume")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
