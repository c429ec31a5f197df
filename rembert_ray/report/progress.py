"""The live line: shards, rows/s, tokens/s, errors, time to go. On a terminal it stays in place, else it is a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

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


class ProgressLine:
    """Shows a tally. Use it in a `with` block and call `show` as often as you like."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self.tally = tally
        self.console = console
        self._logged_at = float("-inf")
        self._shown = 0
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(bar_width=30),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting workers", total=1.0)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()
        elif self._shown != self.tally.shards_done:
            self._log()

    def show(self) -> None:
        """Bring the line up to date; a log gets a line every ten seconds at most, and none while nothing changes."""
        if self.console.is_terminal:
            text = describe(self.tally) if self.tally.shards_done else "starting workers"
            self._bar.update(self._task, completed=self.tally.share_done, description=text)
        elif self._shown != self.tally.shards_done and time.monotonic() - self._logged_at >= LOG_INTERVAL_S:
            self._log()

    def print(self, text: str) -> None:
        """A line of its own, above the live one."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def _log(self) -> None:
        self._logged_at, self._shown = time.monotonic(), self.tally.shards_done
        self.print(describe(self.tally))
