"""Errors, named by what the runner does with them; each carries the exit code that the operator sees.

A bad *row* is never an exception: it is a value in the `error` column. A bad *shard* is a `ShardError` that the
stages turn into a quarantine record. Everything else here ends the job, with a message that says what is wrong,
where, and what to do next. This file imports nothing of the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST_WORD = 100
LONGEST_LINE = 10_000


@dataclass(frozen=True)
class Fault:
    """One thing that makes a job unusable: where it is (manifest key, file, URL), what is wrong, what to do."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.fix})" if self.fix else "")


def printable(text: str) -> str:
    """A message on one line: names and values in it come from others, who shall not write to logs and terminals."""
    text = " ".join(text.splitlines()) if len(text) <= LONGEST_LINE else text[:LONGEST_LINE] + "..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class RembertRayError(Exception):
    """Base of every error that ends a job with a message instead of a traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        # Ray appends advice of its own to `args` on the way from a worker.
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def lines(self) -> list[str]:
        """What to print: one line for each thing that is wrong."""
        return [printable(str(self))]


class UnusableError(RembertRayError):
    """The manifest, the model, the data or the output cannot be used: all faults at once, before Ray starts."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(self.lines))

    def __reduce__(self) -> tuple[type[UnusableError], tuple[tuple[Fault, ...]]]:
        # By default an exception is made again from its text, which is no list of faults.
        return type(self), (self.faults,)

    @property
    def lines(self) -> list[str]:
        """One line for each fault."""
        return [printable(str(fault)) for fault in self.faults]


class StorageError(RembertRayError):
    """The storage gave out: the same command, run again, resumes."""

    exit_code = 5


class StalledError(RembertRayError):
    """No shard finished for the stall time."""

    exit_code = 6


class StoppedError(RembertRayError):
    """Stopped by a signal; what is committed stays, the same command resumes."""

    exit_code = 75


class LeaseHeldError(RembertRayError):
    """Another run writes to this output, or has taken it over."""

    exit_code = 75


class ShardError(RembertRayError):
    """A shard cannot be made; the other shards go on and this one is quarantined with the reason."""

    exit_code = 3


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` when something known is close to `word`, else the sorted list of what is known."""
    options = sorted(known)
    return did_you_mean(word, options) or "known: " + ", ".join(options)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` when something known is close to `word`, else nothing."""
    # Its time grows with the square of the word, which somebody else may have written.
    close = difflib.get_close_matches(word[:LONGEST_WORD], sorted(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
