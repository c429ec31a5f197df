"""`rembert-ray retry`: quarantined shards again, and the rows of committed parts that have an error.

A committed part is never replaced. Under the lease, `_SUCCESS` goes first, so that nobody trusts the output, then the
parts with such rows; then the stored manifest runs, which makes what is missing. Killed anywhere in between, the output
is one that a plain run completes.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rembert_ray.check import CheckedJob, check_job
from rembert_ray.errors import Fault, StorageError, UnusableError, printable
from rembert_ray.job import EXIT_DONE, run_checked
from rembert_ray.manifest import manifest_from, source_of
from rembert_ray.plan import PLAN_PATH, Plan, require_plan
from rembert_ray.report import status
from rembert_ray.report.narration import Narrator
from rembert_ray.report.progress import format_duration
from rembert_ray.stop_signals import stop_signals_raise
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.commit import list_parts, part_footers, part_name
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, locate
from rembert_ray.storage.parquet import read_rows
from rembert_ray.storage.probe import CONTROL_FOLDER

N_ERRORS_SHOWN = 20
DELETE_THREADS = 16
_NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True)
class Retry:
    """What would be tried again.

    shards: committed parts with a chosen error, which are deleted and made again; n_rows, n_rows_with_error: theirs.
    infer_s: seconds in which actors inferred them last time, added over actors.
    errors: kinds of errors, numbers in them as N -> rows in all committed parts, chosen or not.
    missing: shards that are not there, which every run makes; quarantined: those of them that were given up.
    """

    shards: npt.NDArray[np.int64]
    n_rows: int
    n_rows_with_error: int
    infer_s: float
    errors: Counter[str]
    missing: npt.NDArray[np.int64]
    quarantined: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not len(self.shards) and not len(self.missing)

    def lines(self) -> Iterator[str]:
        """For a terminal, before anything is deleted."""
        for error, n in self.errors.most_common(N_ERRORS_SHOWN):
            yield f"error       {n:,} rows: {printable(error)}"
        if len(self.errors) > N_ERRORS_SHOWN:
            yield f"            and {len(self.errors) - N_ERRORS_SHOWN:,} more kinds"
        if len(self.shards):
            yield f"again       {len(self.shards):,} parts, for {self.n_rows_with_error:,} rows with such an error"
            yield f"cost        {self.n_rows:,} rows, {format_duration(self.infer_s)} of inference when they were made"
        if len(self.missing):
            yield f"missing     {len(self.missing):,} shards, {self.quarantined:,} of them quarantined"
        if self.is_empty:
            what = "no row has such an error" if self.errors else "no row has an error"
            yield f"retry       nothing to try again: every shard is there, and {what}"


def retry(
    output: str,
    error: str | None = None,
    *,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    allow_roots: Sequence[str] = (),
    narrator: Narrator | None = None,
) -> int:
    """Try again what failed, by the manifest that is stored with the plan; the exit code of that run, 0 for none.

    Args:
        output: of a job.
        error: only parts with a row whose error contains this text; default: any error.
        dry_run: only say what would be done.
        overrides: `a.b=c`, for what changes no result: `resources`, `limits`.

    Raises:
        RembertRayError: the job cannot be run, or another run is going on; nothing is deleted then.
    """
    narrator = narrator or Narrator()
    plan = require_plan(output)
    with stop_signals_raise():
        if dry_run:
            _say(narrator, find_retry(locate(output), plan, error))
            return EXIT_DONE
        checked = _check_stored(output, plan, overrides, allow_roots)
        with Lease.acquire(checked.output, LeaseOwner.this_process(secrets.token_hex(6))) as lease:
            found = find_retry(checked.output, plan, error)
            _say(narrator, found)
            if found.is_empty:
                return EXIT_DONE
            for _ in take_back(checked.output, plan, found.shards):
                lease.check()
        return run_checked(checked, narrator)


def _say(narrator: Narrator, found: Retry) -> None:
    for line in found.lines():
        narrator.say("retry", line)


def _check_stored(output: str, plan: Plan, overrides: Sequence[str], allow_roots: Sequence[str]) -> CheckedJob:
    """Everything is checked before anything is deleted: that it is the same plan, too."""
    allowed = AllowedRoots.given(allow_roots)
    # It may have been moved since, and is where the person says that it is.
    stored = json.dumps(plan.record["manifest"] | {"output": {"path": locate(output).url}})
    manifest = manifest_from(source_of(stored, str(locate(output).child(*PLAN_PATH)), overrides))
    if locate(manifest.output.path) != locate(output):
        raise UnusableError(Fault("--set output.path", "only what is there can be tried again", "leave it out"))
    return check_job(manifest, allowed)


def find_retry(output: Location, plan: Plan, error: str | None = None) -> Retry:
    """Look for what failed: at the footers of all parts, and the `error` column of those that have errors.

    Raises:
        StorageError: the store gives out.
        ShardError: a part is damaged, which `rembert-ray verify` tells more about.
    """
    digest = plan.fingerprint.digest
    there = list_parts(output, digest)
    missing = np.setdiff1d(np.arange(plan.n_shards, dtype=np.int64), there)
    chosen: list[int] = []
    errors: Counter[str] = Counter()
    n_rows = n_with_error = 0
    infer_s = 0.0
    for shard, footer in zip(there.tolist(), part_footers(output, digest, there), strict=True):
        if not int(footer.get("n_errors", "0")):
            continue
        n_planned = int(footer["n_rows"])
        rows = read_rows(output.child(part_name(shard, digest)), 0, n_planned, ["error"])
        reasons = Counter(reason for reason in rows["error"].to_pylist() if reason is not None)
        for reason, n in reasons.items():
            errors[_kind(reason)] += n
        n_chosen = sum(n for reason, n in reasons.items() if _is_meant(error, reason))
        if n_chosen:
            chosen.append(shard)
            n_rows, n_with_error = n_rows + n_planned, n_with_error + n_chosen
            infer_s += float(footer.get("infer_s", "0"))
    given_up = list_names(output.child(CONTROL_FOLDER, status.QUARANTINE), "shard-")
    names = {f"shard-{shard:08d}.json" for shard in missing.tolist()} if given_up else set()
    quarantined = len(names & set(given_up))
    return Retry(np.array(chosen, np.int64), n_rows, n_with_error, infer_s, errors, missing, quarantined)


def _kind(reason: str) -> str:
    """An error without its numbers: every row has its own."""
    return _NUMBER.sub("N", reason)


def _is_meant(wanted: str | None, reason: str) -> bool:
    """Whether an error is one to try again: `wanted` may be part of it as it is, or as it is shown, with N."""
    return wanted is None or wanted in reason or wanted in _kind(reason)


def take_back(output: Location, plan: Plan, shards: npt.NDArray[np.int64]) -> Iterator[str]:
    """Delete `_SUCCESS`, and then these parts, if there are any; their names, as they are gone.

    For whoever holds the lease. Raises `StorageError` when the store refuses or gives out.
    """
    if not len(shards):
        return
    yield _delete(output.child(status.SUCCESS))
    places = [output.child(part_name(shard, plan.fingerprint.digest)) for shard in shards.tolist()]
    with ThreadPoolExecutor(DELETE_THREADS) as pool:
        # In pieces, so that a caller who stops is heard.
        for start in range(0, len(places), DELETE_THREADS):
            yield from pool.map(_delete, places[start : start + DELETE_THREADS])


def _delete(location: Location) -> str:
    try:
        delete(location)
    except storage_errors() as error:
        raise StorageError(f"cannot delete {explain(str(location), error)}") from error
    return location.name
