"""Which shards run next, which run again, and which are given up. Bookkeeping: it starts nothing, waits for nothing.

Fresh shards come first, in bounded waves; then those that failed, again; then the suspects, on probation, so that
nobody has to wait for them. When Ray loses workers again and again and no shard gets through in between, the shards of
that wave are tried one by one: one that loses its workers even so is given up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

WAVE_SHARDS = 1024
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wave:
    """Shards that run together; `on_probation`: in child processes (see `stages.probation`)."""

    shards: Indices
    on_probation: bool


@dataclass
class Dispatch:
    """The shards of one run. Its size grows with the failures, not with the corpus.

    missing: what has to be made.
    attempts: how often a shard may fail before it is given up.
    failures: shards that failed last time they ran, and why; in the end those that are given up.
    """

    missing: Indices
    attempts: int
    failures: dict[int, str] = field(default_factory=dict)
    stacks: dict[int, str] = field(default_factory=dict)
    _tried: Counter[int] = field(default_factory=Counter)
    _again: list[int] = field(default_factory=list)
    _suspects: list[int] = field(default_factory=list)
    _alone: list[int] = field(default_factory=list)
    _n_started: int = 0
    _wave: Wave | None = None
    _unfinished: set[int] = field(default_factory=set)
    _n_losses: int = 0

    def next_wave(self) -> Wave | None:
        """The next shards to run; None when all are finished or given up."""
        self._again += sorted(self._unfinished)
        self._unfinished = set()
        fresh = self.missing[self._n_started : self._n_started + WAVE_SHARDS]
        if self._alone:
            wave = Wave(np.array([self._alone.pop(0)]), on_probation=True)
        elif len(fresh):
            self._n_started += len(fresh)
            wave = Wave(fresh, on_probation=False)
        elif self._again:
            wave = Wave(np.array(self._again[:WAVE_SHARDS]), on_probation=False)
            del self._again[:WAVE_SHARDS]
        elif self._suspects:
            wave = Wave(np.array(self._suspects[:WAVE_SHARDS]), on_probation=True)
            del self._suspects[:WAVE_SHARDS]
        else:
            return None
        self._wave, self._unfinished = wave, set(wave.shards.tolist())
        return wave

    def finish(self, shard: int) -> None:
        """The shard is committed."""
        self._leave(shard)
        self.failures.pop(shard, None)
        self.stacks.pop(shard, None)

    def fail(self, shard: int, reason: str, *, is_suspect: bool, stacks: str = "") -> None:
        """The shard came back without a result. A suspect that fails on probation is given up."""
        assert self._wave is not None
        self._leave(shard)
        self.failures[shard] = reason
        if stacks:
            self.stacks[shard] = stacks
        self._tried[shard] += 1
        if self._wave.on_probation:
            return
        if is_suspect:
            self._suspects.append(shard)
        elif self._tried[shard] < self.attempts:
            self._again.append(shard)

    def lose_workers(self) -> bool:
        """Ray gave up on a worker, after retries of its own, and with it on the wave. Is there any hope left?"""
        assert self._wave is not None
        self._n_losses += 1
        if len(self._wave.shards) == 1:
            for shard in list(self._unfinished):
                self._unfinished.discard(shard)
                self.failures[shard] = "Ray lost the workers that had it, though it ran alone"
        elif self._n_losses >= self.attempts:
            # One of these may be what takes the workers along; nobody knows which.
            self._alone += sorted(self._unfinished)
            self._unfinished = set()
            self._n_losses = 0
        return self._n_losses < self.attempts

    def _leave(self, shard: int) -> None:
        self._unfinished.discard(shard)
        self._n_losses = 0
