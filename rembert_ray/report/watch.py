"""`rembert-ray status`: one look at an output, or looks again and again until the run that is going on ends.

On a terminal the picture is redrawn in place; in a log there is a line for each change.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from rembert_ray.errors import printable
from rembert_ray.plan import require_plan
from rembert_ray.report.plan_view import bar
from rembert_ray.report.standing import Observer, Standing
from rembert_ray.storage.location import locate

# A listing takes at most this share of the time, so that a million objects are not listed at every look.
LISTING_SHARE = 0.05


def look_at(output: str) -> Standing:
    """Where the job of an output stands.

    Raises:
        UnusableError: there is no plan, or it cannot be read.
        StorageError: the store refuses or gives out.
    """
    return Observer(locate(output), require_plan(output)).look()


def watch(output: str, console: Console, every_s: float, sleep: Callable[[float], None] = time.sleep) -> int:
    """Show where a job stands until no run is going on; the exit code of the last run. Raises as `look_at` does."""
    observer = Observer(locate(output), require_plan(output))
    with Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else _Log(console) as view:
        list_again_at = float("-inf")
        while True:
            started = time.monotonic()
            lists = started >= list_again_at
            standing = observer.look(lists=lists)
            if lists:
                list_again_at = time.monotonic() + (time.monotonic() - started) * (1 / LISTING_SHARE - 1)
            if not standing.is_running:
                break
            if isinstance(view, Live):
                view.update(_picture(standing), refresh=True)
            else:
                view.print(standing.short())
            sleep(every_s)
    for line in observer.look().lines():
        _print_line(console, line)
    return standing.run_exit_code


def _print_line(console: Console, line: str) -> None:
    """A line as it is, neither cut nor coloured."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _picture(standing: Standing) -> Group:
    share = standing.shards_committed / max(standing.n_shards, 1)
    return Group(
        Text.assemble((f"{bar(share, 50):<50}", "cyan"), f" {share:.1%}"),
        *(Text(printable(line)) for line in standing.lines() if not line.startswith("next ")),
        Text("ends when the run ends; Ctrl-C ends only the watching", style="dim"),
    )


class _Log:
    """What takes the place of `Live` where nothing can be redrawn: a line when something changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def print(self, line: str) -> None:
        """Print the line unless it was the last one."""
        if line != self._last:
            self._last = line
            _print_line(self._console, f"{time.strftime('%H:%M:%S')} {line}")
