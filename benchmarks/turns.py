"""Contenders that take turns, because the speed of a shared machine drifts: only ratios of best rounds are compared."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Contender:
    """One way to do the work.

    run: does all of it once; what it returns is there to be compared with what the others return.
    seconds: of each round, by the wall clock.
    result: what the last run returned.
    """

    name: str
    run: Callable[[], Any]
    seconds: list[float] = field(default_factory=list)
    result: Any = None


def take_turns(contenders: Sequence[Contender], n_rounds: int) -> None:
    """Run each once to warm up, then once a round; another one begins each round, so that neighbours change too."""
    for contender in contenders:
        contender.result = contender.run()
    for turn in range(n_rounds):
        first = turn % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            started = time.perf_counter()
            contender.result = contender.run()
            contender.seconds.append(time.perf_counter() - started)
        print(f"round {turn + 1} of {n_rounds}", end="\r", file=sys.stderr, flush=True)


def ratio(other: Contender, ours: Contender) -> float:
    """How many times as long the other one takes, best round against best round."""
    return min(other.seconds) / min(ours.seconds)


def by_round(other: Contender, ours: Contender) -> list[float]:
    """The same within each round."""
    return [theirs / own for theirs, own in zip(other.seconds, ours.seconds, strict=True)]
