"""The last lines of a run: counts, speed, a few rows that a person can judge, and the next command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rembert_ray.check import CheckedJob
from rembert_ray.errors import ShardError, StorageError, printable
from rembert_ray.plan import Plan, describe_refused, format_bytes
from rembert_ray.report.progress import format_duration
from rembert_ray.report.tally import Tally
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.tasks.base import Task

N_FAILURES_SHOWN = 20
N_SAMPLES = 8
SAMPLE_ROWS_READ = 64


def already_done(output: Location, plan: Plan) -> str:
    """For a run that finds nothing to do."""
    return (
        f"done        {output} is complete: {plan.n_rows:,} rows in {plan.n_shards:,} objects, nothing to do\n"
        f"next        {_next_after_success(output)}"
    )


def describe_end(
    checked: CheckedJob, plan: Plan, tally: Tally, failures: Mapping[int, str], over_budget: bool
) -> Iterator[str]:
    """The summary, line by line; the last line is the next command."""
    output = checked.output
    committed = tally.n_shards_before + tally.shards_done
    before = f", {tally.n_shards_before} of them by earlier runs" if tally.n_shards_before else ""
    yield f"shards      {committed:,} of {plan.n_shards:,} committed{before}"
    yield f"rows        {tally.rows_done:,} in this run, {tally.rows_with_error:,} with an error value"
    repeated = 1 - tally.n_tokens_computed / max(tally.n_tokens, 1)
    yield (
        f"tokens      {tally.n_tokens:,}, none of them padding; {repeated:.1%} repeated and computed once; "
        f"{tally.n_tokens / max(tally.n_windows, 1):.0f} per window"
    )
    yield (
        f"speed       {tally.rows_per_s:,.0f} rows/s, {tally.tokens_per_s:,.0f} tokens/s "
        f"over {format_duration(tally.elapsed_s)}, start of the workers included"
    )
    phases = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in tally.seconds.items())
    yield f"work        {phases} (added over workers); {format_bytes(tally.n_bytes)} written"
    for warning in checked.warnings:
        yield f"warning     {warning}"
    try:
        for row in sample_rows(output, plan.fingerprint.digest):
            yield f"sample      {checked.task.render(row)}"
    except (ShardError, StorageError) as error:
        yield f"sample      not shown: {error}"
    if failures:
        yield f"failed      {len(failures):,} shards; records in {output}/_rembert_ray/quarantine"
        for index, reason in sorted(failures.items())[:N_FAILURES_SHOWN]:
            yield f"            shard {index}: {printable(reason)}"
    yield from describe_refused(plan)
    if over_budget:
        limit = checked.manifest.limits.errors
        yield f"over budget {tally.share_with_error:.2%} of rows have an error, limits.errors is {limit:.2%}"
    yield f"output      {output}"
    if failures:
        yield (
            "next        run the same command: only the failed shards are tried again "
            "(a repaired input file is a changed input and needs a new output.path)"
        )
    elif plan.refused:
        yield "next        repair or remove the refused files, and run into a new output.path to have their rows too"
    elif over_budget:
        yield f"next        rembert-ray sample {output} --errors"
    else:
        yield f"next        {_next_after_success(output)}"


def _next_after_success(output: Location) -> str:
    return f"rembert-ray sample {output}"


def sample_rows(
    output: Location, fingerprint: str, n_rows: int = N_SAMPLES, *, with_error: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of objects spread evenly over the output, the middle one of each in length; without Ray or the model."""
    parts = list_parts(output, fingerprint)
    if len(parts) == 0:
        return
    chosen = parts if with_error else parts[np.unique(np.linspace(0, len(parts) - 1, n_rows).astype(np.int64))]
    n_given = 0
    for index in chosen:
        part = output.child(part_name(int(index), fingerprint))
        head = read_rows(part, 0, min(SAMPLE_ROWS_READ, read_footer(part).num_rows))
        rows = [row for row in head.to_pylist() if (row["error"] is not None) == with_error]
        if not rows:
            continue
        rows.sort(key=lambda row: int(row["n_tokens"]))
        yield rows[len(rows) // 2]
        n_given += 1
        if n_given >= n_rows:
            return


def render_error(task: Task, row: Mapping[str, Any]) -> str:
    """A row with an error as a line: the reason and the kept columns."""
    own = {"error", "n_tokens", "n_windows", "truncated"}
    kept = {name: value for name, value in row.items() if name not in own and not isinstance(value, list)}
    return f"{row['error']}: {kept}"
