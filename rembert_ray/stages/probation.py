"""Looks for the rows that end or hang a stage's process, or raise what nobody thought of, and makes errors of them.

A suspect shard is tried as a whole in a child process; most are harmless. If the child dies, smaller and smaller parts
of its rows are tried, all others set aside, down to the rows to blame; then the whole shard is run once more without
them. Slow (each death costs a new child, which loads the tokenizer or the model), rare, and bounded in time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from rembert_ray.errors import ShardError
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.isolation import DiedError, IsolatedStage, Stage
from rembert_ray.stages.spec import JobSpec
from rembert_ray.watchdog import beat

# Few deaths a row that is to blame (the logarithm to this base), few attempts for each of them.
PARTS = 16
SEARCH = 6
LEAST_PATIENCE_S = 60.0
OUTSIDE = "not tried in this attempt"
_Rows = tuple[int, int]


@dataclass
class Probation:
    """Shards on probation in one stage; `run` is what the stage's own work is for a shard that is harmless.

    patience_s: seconds that a child may be silent over a whole shard (see `watchdog.beat`); over a part of it, less.
    The search in one shard takes at most `SEARCH` times as long.
    can_set_aside: whether the stage can leave out rows; if not, a shard that ends its process is given up.
    """

    stage: type[Stage]
    spec: JobSpec
    patience_s: float
    can_set_aside: bool = True
    _deadline: float = field(default=0.0, init=False)

    def run(self, envelope: Envelope) -> Envelope:
        """The stage's result, with an error in each row that is to blame.

        Raises:
            ShardError: the stage refused the shard, no row alone is to blame, or the search takes too long.
        """
        self._deadline = time.monotonic() + SEARCH * self.patience_s
        with IsolatedStage(self.stage, self.spec, envelope, SEARCH * self.patience_s) as child:
            done, why = self._attempt(child, {}, self.patience_s)
            if done is None and self.can_set_aside:
                blamed = dict(self._search(child, envelope.shard.n_rows))
                done, why = self._attempt(child, blamed, self.patience_s)
        if done is None:
            raise ShardError(f"{why}, and no single row is to blame")
        return done

    def _search(self, child: IsolatedStage, n_rows: int) -> Iterator[tuple[int, str]]:
        """The rows that fail alone, in order, and how."""
        least_s = min(LEAST_PATIENCE_S, self.patience_s)
        suspects: list[_Rows] = [(0, n_rows)]
        while suspects:
            first, end = suspects.pop()
            for part in reversed(_cut(first, end)):
                done, why = self._attempt(child, _others(part, n_rows), least_s)
                if done is None and part[1] - part[0] == 1:
                    yield part[0], why
                elif done is None:
                    suspects.append(part)

    def _attempt(
        self, child: IsolatedStage, set_aside: dict[int, str], silence_s: float
    ) -> tuple[Envelope | None, str]:
        if time.monotonic() > self._deadline:
            raise ShardError(f"its rows end processes in {self._name}; the search for them took too long")
        beat()
        try:
            done = child.attempt(set_aside, silence_s)
        except DiedError as died:
            return None, f"ended its process in {self._name} ({died})"
        if done.is_suspect:
            return None, f"{done.failure} (in {self._name})"
        if done.failure is not None:
            raise ShardError(done.failure)
        return done, ""

    @property
    def _name(self) -> str:
        return self.stage.__name__.lower()


def _cut(first: int, end: int) -> list[_Rows]:
    n_parts = min(PARTS, end - first)
    cuts = [first + (end - first) * index // n_parts for index in range(n_parts + 1)]
    return list(pairwise(cuts))


def _others(part: _Rows, n_rows: int) -> dict[int, str]:
    return {row: OUTSIDE for row in range(n_rows) if not part[0] <= row < part[1]}
