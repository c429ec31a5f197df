"""What `rembert-ray status`, `sample` and `gc` print, from an output alone: no Ray, no torch, no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.plan import Plan, require_plan
from rembert_ray.report import status
from rembert_ray.report.progress import format_duration
from rembert_ray.report.summary import render_error, sample_rows
from rembert_ray.storage.commit import list_parts
from rembert_ray.storage.gc import STALE_AFTER_S, remove_files, remove_uploads
from rembert_ray.storage.lease import lease_holder
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import Task, find_task


def _task_of(plan: Plan) -> Task:
    manifest = plan.record["manifest"]
    kind = find_task(manifest["task"])
    return kind(kind.Parameters.model_validate(manifest["head"]))


def describe_status(output: str) -> str:
    """Shards that are there, what the last run said, and whether the output is closed."""
    plan = require_plan(output)
    location = locate(output)
    there = list_parts(location, plan.fingerprint.digest)
    last = status.read(location)
    closed = "complete, _SUCCESS is there" if status.is_success(location) else "not complete"
    return (
        f"output      {location}: {closed}\n"
        f"shards      {len(there):,} of {plan.n_shards:,} committed, {plan.n_rows:,} rows planned\n"
        f"last run    {'none yet, or its status is damaged' if last is None else _describe_run(last)}"
    )


def _describe_run(last: dict[str, Any]) -> str:
    rows = last["rows"]
    eta = f", {format_duration(last['eta_s'])} to go" if last["state"] == "running" and last["eta_s"] else ""
    message = f": {last['message']}" if last["message"] else ""
    return (
        f"{last['run']} {last['state']}{message} (exit code {last['exit_code']}, {last['updated']})\n"
        f"            {rows['committed_this_run']:,} rows, {rows['with_error_this_run']:,} with an error, "
        f"{last['rows_per_s']:,.0f} rows/s, {last['tokens_per_s']:,.0f} tokens/s{eta}"
    )


def describe_sample(output: str, n_rows: int, *, with_error: bool) -> Iterator[str]:
    """Rows of an output as lines."""
    plan = require_plan(output)
    task = _task_of(plan)
    for row in sample_rows(locate(output), plan.fingerprint.digest, n_rows, with_error=with_error):
        yield render_error(task, row) if with_error else task.render(row)


def describe_gc(output: str, older_than_s: float, *, dry_run: bool) -> Iterator[str]:
    """Remove what killed runs and other writers left behind, older than so many seconds; what it was, as lines.

    Raises:
        UnusableError: a run is going on, and its own files could be among what is so young.
    """
    location = locate(output)
    if older_than_s < STALE_AFTER_S and (holder := lease_holder(location)):
        what = f"{holder} writes here; files younger than {STALE_AFTER_S:.0f} s may be its own"
        raise UnusableError(Fault("--older-than", what, "wait for its end, or leave the option out"))
    verb = "would remove" if dry_run else "removed"
    n_found = 0
    for remove in (remove_files, remove_uploads):
        for leftover in remove(location, older_than_s, dry_run=dry_run):
            n_found += 1
            yield f"{verb:<13}{leftover}"
    if not n_found:
        yield f"nothing older than {older_than_s:.0f} s is left over"
