"""The live line: shards, rows/s, tokens/s, errors, time to go. On a terminal it stays in place, else it is a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn

from rembert_ray.report.narration import Narrator
from rembert_ray.report.tally import Tally

LOG_INTERVAL_S = 10.0


def format_duration(seconds: float) -> str:
    """`3725.4` -> `1 h 02 m`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 60} m {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def describe(tally: Tally) -> str:
    """The numbers of the live line, without the bar."""
    done = tally.n_shards_before + tally.shards_done
    eta = "?" if tally.eta_s is None else format_duration(tally.eta_s)
    failed = f", {tally.shards_failed} shards failed" if tally.shards_failed else ""
    batches = f" in batches of {tally.batch_tokens:,}" if tally.batch_tokens else ""
    return (
        f"{done}/{tally.n_shards} shards, {tally.rows_per_s:,.0f} rows/s, {tally.tokens_per_s:,.0f} tokens/s{batches}, "
        f"{tally.rows_with_error} errors{failed}, {eta} to go"
    )


def progress_fields(tally: Tally) -> dict[str, Any]:
    """The same as numbers, for a log."""
    return {
        "shards": tally.n_shards_before + tally.shards_done,
        "shards_planned": tally.n_shards,
        "shards_failed": tally.shards_failed,
        "rows": tally.rows_done,
        "errors": tally.rows_with_error,
        "rows_per_s": tally.rows_per_s,
        "tokens_per_s": tally.tokens_per_s,
        "eta_s": tally.eta_s,
    }


class ProgressLine:
    """Shows a tally. Use it in a `with` block and call `show` as often as you like."""

    def __init__(self, tally: Tally, narrator: Narrator) -> None:
        self.tally = tally
        self.narrator = narrator
        self.is_live = narrator.console.is_terminal and narrator.style == "words"
        self._logged_at = float("-inf")
        self._shown = 0
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(bar_width=30),
            TextColumn("{task.description}"),
            console=narrator.console,
            transient=True,
        )
        self._task = self._bar.add_task("starting workers", total=1.0)

    def __enter__(self) -> Self:
        if self.is_live:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_live:
            self._bar.stop()
        elif self._shown != self.tally.shards_done:
            self._log()

    def show(self) -> None:
        """Bring the line up to date; a log gets a line every ten seconds at most, and none while nothing changes."""
        if self.is_live:
            text = describe(self.tally) if self.tally.shards_done else "starting workers"
            self._bar.update(self._task, completed=self.tally.share_done, description=text)
        elif self._shown != self.tally.shards_done and time.monotonic() - self._logged_at >= LOG_INTERVAL_S:
            self._log()

    def _log(self) -> None:
        self._logged_at, self._shown = time.monotonic(), self.tally.shards_done
        self.narrator.say("progress", describe(self.tally), **progress_fields(self.tally))
