"""The last lines of a run: counts, speed, a few rows that a person can judge, and the next command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rembert_ray.check import CheckedJob
from rembert_ray.errors import ShardError, StorageError, printable
from rembert_ray.plan import Plan, describe_refused, format_bytes
from rembert_ray.report.closing import Closing
from rembert_ray.report.progress import format_duration, progress_fields
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


@dataclass
class End:
    """A run at its end. failures: shards that are given up, and why."""

    checked: CheckedJob
    plan: Plan
    tally: Tally
    failures: Mapping[int, str]
    over_budget: bool
    closing: Closing

    def lines(self, *, with_rows: bool) -> Iterator[str]:
        """The summary for a person; the last line is the next command."""
        yield from self._counts()
        for warning in self.checked.warnings:
            yield f"warning     {warning}"
        if with_rows:
            yield from (f"sample      {row}" for row in self.rows())
        if self.failures:
            yield f"failed      {len(self.failures):,} shards; records in {self.checked.output}/_rembert_ray/quarantine"
        for failure in self.failure_fields():
            yield f"            shard {failure['shard']}: {failure['reason']}"
        yield from describe_refused(self.plan)
        if self.over_budget:
            limit = self.checked.manifest.limits.errors
            yield f"over budget {self.tally.share_with_error:.2%} of rows have an error, limits.errors is {limit:.2%}"
        yield from self.closing.lines()
        yield f"output      {self.checked.output}"
        yield f"next        {self.next}"

    def _counts(self) -> Iterator[str]:
        tally = self.tally
        committed = tally.n_shards_before + tally.shards_done
        before = f", {tally.n_shards_before} of them by earlier runs" if tally.n_shards_before else ""
        yield f"shards      {committed:,} of {self.plan.n_shards:,} committed{before}"
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

    def rows(self) -> Iterator[str]:
        """A few rows as lines, or why there are none."""
        try:
            for sample in sample_rows(self.checked.output, self.plan):
                yield printable(self.checked.task.render(sample.values))
        except (ShardError, StorageError) as error:
            yield f"not shown: {error}"

    def failure_fields(self) -> Iterator[dict[str, Any]]:
        """The first shards that are given up, and why."""
        for index, reason in sorted(self.failures.items())[:N_FAILURES_SHOWN]:
            yield {"shard": index, "reason": printable(reason)}

    def refused_fields(self) -> Iterator[dict[str, Any]]:
        """The first files that are set aside, and why."""
        for _, url, reason in self.plan.refused[:N_FAILURES_SHOWN]:
            yield {"source": printable(url), "reason": printable(reason)}

    def fields(self) -> dict[str, Any]:
        """The summary as numbers, for a log."""
        drift = self.closing.record.drift if self.closing.record else None
        return progress_fields(self.tally) | {
            "eta_s": None,
            "tokens": self.tally.n_tokens,
            "bytes": self.tally.n_bytes,
            "elapsed_s": self.tally.elapsed_s,
            "refused": len(self.plan.refused),
            "over_budget": self.over_budget,
            "drift": drift.level if drift else None,
            "withheld": self.closing.is_withheld,
            "output": str(self.checked.output),
        }

    @property
    def next(self) -> str:
        """The command, or what else a person should do."""
        if self.failures:
            return (
                "run the same command: only the failed shards are tried again "
                "(a repaired input file is a changed input and needs a new output.path)"
            )
        if self.plan.refused:
            return "repair or remove the refused files, and run into a new output.path to have their rows too"
        if self.over_budget:
            return f"rembert-ray sample {self.checked.output} --errors"
        if self.closing.is_withheld:
            return (
                "look at the report; if the change is right, run the same command with --set drift.gate=false: "
                "it computes nothing, and closes the output"
            )
        return _next_after_success(self.checked.output)


def _next_after_success(output: Location) -> str:
    return f"rembert-ray sample {output}"
