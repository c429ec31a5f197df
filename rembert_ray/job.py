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
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rembert_ray import cluster
from rembert_ray.check import CheckedJob, check_job
from rembert_ray.dispatch import Dispatch
from rembert_ray.errors import RembertRayError, StoppedError, StorageError
from rembert_ray.job_spec import job_spec
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import Plan, describe, describe_fields, freeze_plan
from rembert_ray.report import status, summary
from rembert_ray.report.closing import Closing, check_against
from rembert_ray.report.narration import Narrator
from rembert_ray.report.progress import ProgressLine
from rembert_ray.report.tally import Tally
from rembert_ray.stop_signals import stop_signals_raise
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.commit import confirm_parts, count_errors, list_parts, refuse_parts_of_another_plan
from rembert_ray.storage.gc import STALE_AFTER_S, remove_files
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.waves import Waves

if TYPE_CHECKING:
    from rembert_ray.report.metrics import Metrics

EXIT_DONE, EXIT_QUARANTINED, EXIT_STOPPED = 0, 3, StoppedError.exit_code


def run(
    manifest_url: str,
    overrides: tuple[str, ...] = (),
    narrator: Narrator | None = None,
    allow_roots: Sequence[str] = (),
    limit_rows: int | None = None,
) -> int:
    """Run a manifest to its end and return the exit code 0 or 3. `allow_roots`: see `AllowedRoots.given`.

    With `limit_rows` it ends with 75 once so many rows are committed, as whole shards in the order of the plan, those
    of earlier runs among them; the plan is that of the whole job, and a run without it goes on.

    Raises:
        RembertRayError: the job cannot be run or was interrupted; the error carries its exit code.
    """
    allowed = AllowedRoots.given(allow_roots)
    with stop_signals_raise():
        checked = check_job(load_manifest(manifest_url, overrides, allowed), allowed)
        return run_checked(checked, narrator or Narrator(), limit_rows)


def run_checked(checked: CheckedJob, narrator: Narrator, limit_rows: int | None = None) -> int:
    """See `run`."""
    run_id = secrets.token_hex(6)
    narrator.fixed["run"] = run_id
    for warning in check_against(checked):
        narrator.say("warning", f"warning     {warning}", level="warning")
    with Lease.acquire(checked.output, LeaseOwner.this_process(run_id)) as lease:
        plan = freeze_plan(checked.output, checked.plan)
        narrator.say("plan", describe(plan), **describe_fields(plan), output=str(checked.output))
        done = list_parts(checked.output, plan.fingerprint.digest)
        refuse_parts_of_another_plan(checked.output, plan.fingerprint.digest, plan.plan_id, done)
        job = Job(checked, plan, run_id, lease, narrator, done, limit_rows)
        if len(job.missing) == 0 and status.is_success(checked.output):
            narrator.say("done", summary.already_done(checked.output, plan), rows=plan.n_rows, shards=plan.n_shards)
            return EXIT_DONE
        return job.run()


@dataclass
class Job:
    """One run of a checked job, with the lease in hand.

    missing: the shards that are not there; wanted: those of them that this run makes, all unless there is a limit.
    """

    checked: CheckedJob
    plan: Plan
    run_id: str
    lease: Lease
    narrator: Narrator
    done: npt.NDArray[np.int64]
    limit_rows: int | None = None
    missing: npt.NDArray[np.int64] = field(init=False)
    wanted: npt.NDArray[np.int64] = field(init=False)
    tally: Tally = field(init=False)
    dispatch: Dispatch = field(init=False)
    metrics: Metrics | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.missing = np.setdiff1d(np.arange(self.plan.n_shards, dtype=np.int64), self.done)
        self.tally = Tally.of_plan(self.plan.shards, self.missing)
        self.wanted = self._up_to_limit()
        self.dispatch = Dispatch(self.wanted, self.checked.manifest.limits.attempts)

    def _up_to_limit(self) -> npt.NDArray[np.int64]:
        """The first of the missing shards that bring the rows that are committed up to the limit."""
        if self.limit_rows is None:
            return self.missing
        there = self.tally.n_rows_before
        before_each = there + np.cumsum(np.r_[0, self.plan.shards["n_rows"].to_numpy()[self.missing]])[:-1]
        return self.missing[before_each < self.limit_rows]

    def run(self) -> int:
        """Run what is missing and close the output; the exit code."""
        remove_files(self.checked.output, STALE_AFTER_S)
        try:
            if len(self.wanted):
                self._run_missing()
            return self._finish() if len(self.wanted) == len(self.missing) else self._stop_at_limit()
        except RembertRayError as error:
            if self.metrics is not None:
                self.metrics.stopped()
            self._write_status("stopped", error.exit_code, str(error))
            raise

    def _run_missing(self) -> None:
        from rembert_ray.report.metrics import Metrics

        if self.tally.n_shards_before:
            there = self.tally.n_shards_before
            self.narrator.say("resume", f"resume      {there} shards are there already", shards=there)
        if len(self.wanted) < len(self.missing):
            what = f"{len(self.wanted):,} of {len(self.missing):,} missing shards, up to {self.limit_rows:,} rows"
            words = f"limit       {what}; the time to go is that of the whole job"
            self.narrator.say("limit", words, shards=len(self.wanted), rows=self.limit_rows)
        cluster.connect()
        pools = cluster.size_pools(self.checked.manifest)
        self.narrator.say("workers", f"workers     {pools}", **asdict(pools))
        if n_gpus := cluster.unused_gpus(self.checked.manifest):
            words = f"note        {n_gpus} GPUs are idle: set resources.gpus_per_actor to use them"
            self.narrator.say("note", words, level="warning")
        self.tally.start()
        self.metrics = Metrics(self.checked.manifest.task, str(self.checked.output), self.tally)
        # Entered again because Ray has set handlers of its own when it started.
        with stop_signals_raise(), ProgressLine(self.tally, self.narrator) as line:
            waves = Waves(
                plan=self.plan,
                spec=job_spec(self.checked, self.plan, self.run_id, pools.n_threads, self.narrator.style),
                pools=pools,
                stall_s=self.checked.manifest.limits.stall_s,
                dispatch=self.dispatch,
                tally=self.tally,
                lease=self.lease,
                line=line,
                metrics=self.metrics,
                write_status=lambda: self._write_status("running"),
            )
            waves.run()

    def _stop_at_limit(self) -> int:
        """End before the job does, as was asked for; failed shards show in the exit code all the same."""
        output, failures = self.checked.output, self.dispatch.failures
        self._record_failures()
        status.release_quarantined(output, set(list_parts(output, self.plan.fingerprint.digest).tolist()))
        n_rows = self.tally.n_rows_before + self.tally.rows_done
        counts = f"{n_rows:,} of {self.plan.n_rows:,} rows are committed"
        message = f"stopped at --limit {self.limit_rows:,}: {counts}; run without it to go on"
        exit_code = EXIT_QUARANTINED if failures else EXIT_STOPPED
        self._write_status("stopped", exit_code, message)
        if self.tally.shards_done or failures:
            closing = Closing.look(self.checked, self.plan)
            closing.write("stopped", exit_code)
            if self.metrics is not None:
                self.metrics.ended(len(failures), is_success=False, drift=closing.drift)
            self._tell_end(summary.End(self.checked, self.plan, self.tally, failures, False, closing), exit_code)
        self.narrator.say("limit", message, exit_code=exit_code)
        return exit_code

    def _finish(self) -> int:
        output, plan, failures = self.checked.output, self.plan, self.dispatch.failures
        self._record_failures()
        there = confirm_parts(output, plan.fingerprint.digest, np.arange(plan.n_shards, dtype=np.int64))
        status.release_quarantined(output, set(there.tolist()))
        over_budget = self._is_over_budget()
        closing = Closing.look(self.checked, plan)
        is_complete = len(there) == plan.n_shards and not plan.refused
        is_good = is_complete and not over_budget and not closing.is_withheld
        exit_code = EXIT_DONE if is_good else EXIT_QUARANTINED
        if exit_code == EXIT_DONE:
            content = {"plan": plan.plan_id, "fingerprint": plan.fingerprint.digest, "run": self.run_id}
            counts = {"rows_in": plan.n_rows, "rows_out": plan.n_rows, "shards": plan.n_shards}
            status.close(output, content | counts | {"last_run": self.tally.to_dict()})
        state = "done" if exit_code == EXIT_DONE else "incomplete"
        whys = {"the error budget is exceeded": over_budget, "drift.gate withholds _SUCCESS": closing.is_withheld}
        self._write_status(state, exit_code, ", ".join(why for why, is_so in whys.items() if is_so))
        closing.write(state, exit_code)
        if self.metrics is not None:
            self.metrics.ended(len(failures), is_success=exit_code == EXIT_DONE, drift=closing.drift)
        self._tell_end(summary.End(self.checked, plan, self.tally, failures, over_budget, closing), exit_code)
        return exit_code

    def _tell_end(self, end: summary.End, exit_code: int) -> None:
        """The summary: for a person line by line, for a log as one event and one for each failure."""
        if self.narrator.style == "words":
            for line in end.lines(with_rows=self.narrator.shows_rows):
                self.narrator.say("end", line)
            return
        for failure in end.failure_fields():
            self.narrator.say("shard_failed", failure["reason"], level="error", shard=failure["shard"])
        for refused in end.refused_fields():
            self.narrator.say("file_refused", refused["reason"], level="error", source=refused["source"])
        if self.narrator.shows_rows:
            for row in end.rows():
                self.narrator.say("sample", row)
        self.narrator.say(
            "end",
            f"next        {end.next}",
            level="error" if exit_code else "info",
            exit_code=exit_code,
            **end.fields(),
        )

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

    def _write_status(self, state: str, exit_code: int | None = None, message: str = "") -> None:
        values = {"state": state, "exit_code": exit_code, "message": message, "run": self.run_id}
        # It only informs: it must neither end a run nor hide what ended it.
        try:
            status.write(self.checked.output, values | self.tally.to_dict())
        except StorageError as fault:
            self.narrator.say("note", f"note        the status is not written: {fault}", level="warning")
