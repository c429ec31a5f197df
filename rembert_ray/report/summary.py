"""The last lines of a run: counts, speed, a few rows that a person can judge, and the next command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rembert_ray.check import CheckedJob
from rembert_ray.errors import ShardError, StorageError, printable
from rembert_ray.plan import Plan, describe_refused, format_bytes
from rembert_ray.report.closing import Closing
from rembert_ray.report.progress import format_duration
from rembert_ray.report.samples import sample_rows
from rembert_ray.report.tally import Tally
from rembert_ray.storage.location import Location

N_FAILURES_SHOWN = 20


def already_done(output: Location, plan: Plan) -> str:
    """For a run that finds nothing to do."""
    return (
        f"done        {output} is complete: {plan.n_rows:,} rows in {plan.n_shards:,} objects, nothing to do\n"
        f"next        {_next_after_success(output)}"
    )


def describe_end(
    checked: CheckedJob, plan: Plan, tally: Tally, failures: Mapping[int, str], over_budget: bool, closing: Closing
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
        for sample in sample_rows(output, plan):
            yield f"sample      {printable(checked.task.render(sample.values))}"
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
    yield from closing.lines()
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
    elif closing.is_withheld:
        yield (
            "next        look at the report; if the change is right, run the same command with --set drift.gate=false: "
            "it computes nothing, and closes the output"
        )
    else:
        yield f"next        {_next_after_success(output)}"


def _next_after_success(output: Location) -> str:
    return f"rembert-ray sample {output}"
