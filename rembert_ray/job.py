"""A job from manifest to `_SUCCESS`: the one page to read first.

check    every fault of manifest, model, input and output, before Ray starts          -> exit 2
lease    one run at a time writes to an output                                         -> exit 75 if it is held
plan     the stored plan, or a new one, stored before the first shard                  (plan.py)
resume   planned shards minus the objects that are there; nothing left: say so, done   (storage/commit.py)
run      waves of shards through the pipeline; each comes back as a receipt            (waves.py, pipeline.py)
finish   failed shards and refused files are recorded                                  -> exit 3
         all objects there: `_SUCCESS`, a summary and the next command                 -> exit 0
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rich.console import Console

from rembert_ray import cluster
from rembert_ray.check import CheckedJob, check_job
from rembert_ray.dispatch import Dispatch
from rembert_ray.errors import RembertRayError, StorageError
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import Plan, describe, freeze_plan
from rembert_ray.report import status, summary
from rembert_ray.report.progress import ProgressLine
from rembert_ray.report.tally import Tally
from rembert_ray.stages.spec import JobSpec
from rembert_ray.stop_signals import stop_signals_raise
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.commit import confirm_parts, count_errors, list_parts, refuse_parts_of_another_plan
from rembert_ray.storage.gc import STALE_AFTER_S, remove_files
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.waves import Waves

SILENCES_PER_STALL = 3
EXIT_DONE, EXIT_QUARANTINED = 0, 3


def run(
    manifest_url: str,
    overrides: tuple[str, ...] = (),
    console: Console | None = None,
    allow_roots: Sequence[str] = (),
) -> int:
    """Run a manifest to its end and return the exit code 0 or 3. `allow_roots`: see `AllowedRoots.given`.

    Raises:
        RembertRayError: the job cannot be run or was interrupted; the error carries its exit code.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    allowed = AllowedRoots.given(allow_roots)
    with stop_signals_raise():
        checked = check_job(load_manifest(manifest_url, overrides, allowed), allowed)
        run_id = secrets.token_hex(6)
        with Lease.acquire(checked.output, LeaseOwner.this_process(run_id)) as lease:
            plan = freeze_plan(checked.output, checked.plan)
            console.print(describe(plan), markup=False)
            done = list_parts(checked.output, plan.fingerprint.digest)
            refuse_parts_of_another_plan(checked.output, plan.fingerprint.digest, plan.plan_id, done)
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
    missing: npt.NDArray[np.int64] = field(init=False)
    tally: Tally = field(init=False)
    dispatch: Dispatch = field(init=False)

    def __post_init__(self) -> None:
        self.missing = np.setdiff1d(np.arange(self.plan.n_shards, dtype=np.int64), self.done)
        self.tally = Tally.of_plan(self.plan.shards, self.missing)
        self.dispatch = Dispatch(self.missing, self.checked.manifest.limits.attempts)

    def run(self) -> int:
        """Run what is missing and close the output; the exit code."""
        remove_files(self.checked.output, STALE_AFTER_S)
        try:
            if len(self.missing):
                self._run_missing()
            return self._finish()
        except RembertRayError as error:
            self._write_status("stopped", error.exit_code, str(error))
            raise

    def _run_missing(self) -> None:
        if self.tally.n_shards_before:
            self.console.print(f"resume      {self.tally.n_shards_before} shards are there already", markup=False)
        cluster.connect()
        pools = cluster.size_pools(self.checked.manifest)
        self.console.print(f"workers     {pools}", markup=False)
        if n_gpus := cluster.unused_gpus(self.checked.manifest):
            self.console.print(f"note        {n_gpus} GPUs are idle: set resources.gpus_per_actor to use them")
        self.tally.start()
        # Entered again because Ray has set handlers of its own when it started.
        with stop_signals_raise(), ProgressLine(self.tally, self.console) as line:
            waves = Waves(
                plan=self.plan,
                spec=self._spec(pools.n_threads),
                pools=pools,
                stall_s=self.checked.manifest.limits.stall_s,
                dispatch=self.dispatch,
                tally=self.tally,
                lease=self.lease,
                line=line,
                write_status=lambda: self._write_status("running"),
            )
            waves.run()

    def _finish(self) -> int:
        output, plan, failures = self.checked.output, self.plan, self.dispatch.failures
        self._record_failures()
        there = confirm_parts(output, plan.fingerprint.digest, np.arange(plan.n_shards, dtype=np.int64))
        status.release_quarantined(output, set(there.tolist()))
        over_budget = self._is_over_budget()
        is_complete = len(there) == plan.n_shards and not plan.refused
        exit_code = EXIT_DONE if is_complete and not over_budget else EXIT_QUARANTINED
        if exit_code == EXIT_DONE:
            content = {"plan": plan.plan_id, "fingerprint": plan.fingerprint.digest, "run": self.run_id}
            counts = {"rows_in": plan.n_rows, "rows_out": plan.n_rows, "shards": plan.n_shards}
            status.close(output, content | counts | {"last_run": self.tally.to_dict()})
        self._write_status("done" if exit_code == EXIT_DONE else "incomplete", exit_code)
        for text in summary.describe_end(self.checked, plan, self.tally, failures, over_budget):
            self.console.print(text, markup=False)
        return exit_code

    def _record_failures(self) -> None:
        """Quarantine records: why a shard was given up, why a file is not in the plan."""
        output, plan = self.checked.output, self.plan
        for index, reason in sorted(self.dispatch.failures.items()):
            shard = plan.shard(index)
            record = {"shard": index, "source": shard.url, "row_start": shard.row_start, "n_rows": shard.n_rows}
            record |= {"reason": reason, "run": self.run_id}
            if stacks := self.dispatch.stacks.get(index):
                record["stacks"] = stacks
            status.quarantine(output, f"shard-{index:08d}", record)
        for number, url, reason in plan.refused:
            status.quarantine(output, f"file-{number:08d}", {"source": url, "reason": reason, "run": self.run_id})

    def _is_over_budget(self) -> bool:
        """Whether the share of rows with an error, those of earlier runs among them, is above `limits.errors`."""
        limit = self.checked.manifest.limits.errors
        if limit >= 1:
            return False
        self.tally.rows_with_error_before = count_errors(self.checked.output, self.plan.fingerprint.digest, self.done)
        return self.tally.share_with_error > limit

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
            storage_s=checked.manifest.limits.storage_s,
            silence_s=checked.manifest.limits.stall_s / SILENCES_PER_STALL,
            footer={"task": checked.manifest.task},
        )

    def _write_status(self, state: str, exit_code: int | None = None, message: str = "") -> None:
        values = {"state": state, "exit_code": exit_code, "message": message, "run": self.run_id}
        # It only informs: it must neither end a run nor hide what ended it.
        try:
            status.write(self.checked.output, values | self.tally.to_dict())
        except StorageError as fault:
            self.console.print(f"note        the status is not written: {fault}", markup=False)
