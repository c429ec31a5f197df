"""What is counted over matched rows, block by block: errors, and for each head changed outcomes, scores and vectors.

Memory does not grow with the rows, but for four bytes of each pair of vectors. Nothing is read or printed here.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rembert_ray.comparison.sides import DIGEST, LONGEST_OUTCOME, Long, Rows
from rembert_ray.tasks.base import Outcome, Task

N_TRANSITIONS = 10
MOST_TRANSITIONS = 100_000
LONGEST_SHOWN = 60
NONE = "(none)"
FAR = 0.99
"""A cosine below this is a vector that another index would rank elsewhere."""

SAME = 1 - 1e-6
"""Two float32 vectors with this cosine are the same one, but for the last digit."""

Place = tuple[tuple[int, int], tuple[int, int]]
"""(shard, row) in the old output, and in the new one."""


@dataclass
class Errors:
    """Rows with an error in one output, of those that are in both."""

    n_new: int = 0
    n_gone: int = 0
    n_both: int = 0

    def add(self, old: Rows, new: Rows) -> None:
        """Count a block."""
        self.n_new += int((new.has_error & ~old.has_error).sum())
        self.n_gone += int((old.has_error & ~new.has_error).sum())
        self.n_both += int((old.has_error & new.has_error).sum())


@dataclass
class Cosines:
    """Cosines of pairs of vectors; where a row has a vector in one output only, it is 0, in none, 1."""

    values: list[NDArray[np.float32]] = field(default_factory=list)
    sizes: tuple[int, int] | None = None
    """Numbers of dimensions, where they differ: then nothing is compared."""

    def summary(self) -> dict[str, float | int] | None:
        """Median, least, and how many are below `FAR`; None without vectors."""
        if not self.values:
            return None
        values = np.concatenate(self.values)
        if not len(values):
            return None
        n_far = int((values < FAR).sum())
        share = n_far / len(values)
        return {
            "n_rows": len(values),
            "median": float(np.median(values)),
            "least": float(values.min()),
            "n_below_0.99": n_far,
            "share_below_0.99": share,
        }


class HeadChanges:
    """The changes of one head. `n_rows`: how many changed rows are remembered, to be shown."""

    def __init__(self, name: str, task: Task, n_rows: int) -> None:
        self.name = name
        self.task = task
        self.n_compared = 0
        self.n_changed = 0
        self.n_scores = 0
        self.score_sum = 0.0
        self.cosines = Cosines()
        self._transitions: Counter[tuple[str, str]] = Counter()
        self._wanted = n_rows
        self._drawn: list[Place] = []
        self._farthest: list[tuple[float, Place]] = []
        self._generator = random.Random(0)

    def add(self, old: Rows, new: Rows) -> None:
        """Count a block of matched rows; those with an error in one of the outputs have no outcome to compare."""
        good = np.flatnonzero(~old.has_error & ~new.has_error)
        old, new = old.take(good), new.take(good)
        before, after = old.outcomes[self.name], new.outcomes[self.name]
        if before.text is not None and after.text is not None:
            self._add_texts(old, new, before.text, after.text)
        if before.score is not None and after.score is not None and not old.is_again:
            differences = pc.subtract(after.score.cast(pa.float64()), before.score.cast(pa.float64())).drop_null()
            finite = differences.filter(pc.is_finite(differences))
            self.n_scores += len(finite)
            self.score_sum += pc.sum(finite).as_py() or 0.0
        if before.vectors is not None and after.vectors is not None:
            self._add_vectors(old, new, before, after)

    @property
    def share_changed(self) -> float:
        """Of the rows that have an outcome in both outputs."""
        return self.n_changed / max(self.n_compared, 1)

    @property
    def score_difference(self) -> float | None:
        """Mean of new less old score; None without scores."""
        return self.score_sum / self.n_scores if self.n_scores else None

    @property
    def transitions(self) -> list[tuple[str, str, int]]:
        """The most frequent changes, old, new and how often; what happened once is no pattern."""
        return [(old, new, n) for (old, new), n in self._transitions.most_common(N_TRANSITIONS) if n > 1]

    @property
    def places(self) -> list[tuple[Place, float | None]]:
        """Changed rows to look at, drawn from all of them; of vectors the ones with the least cosine, and that."""
        farthest = sorted(((-negative, place) for negative, place in self._farthest if -negative < SAME))
        return [*((place, None) for place in sorted(self._drawn)), *((place, cosine) for cosine, place in farthest)]

    def _add_texts(self, old: Rows, new: Rows, before: pa.Array, after: pa.Array) -> None:
        before, after = (pc.fill_null(text.cast(pa.large_string()), NONE) for text in (before, after))
        changed = np.flatnonzero(np.asarray(pc.not_equal(before, after)))
        pairs = zip(before.take(changed).to_pylist(), after.take(changed).to_pylist(), strict=True)
        self._count_steps(pairs, old.is_again)
        if old.is_again:
            return
        self.n_compared += len(before)
        for index in changed.tolist():
            self._draw(_place(old, new, index))

    def _count_steps(self, pairs: Iterable[tuple[str, str]], is_again: bool) -> None:
        for pair in pairs:
            # A row that comes again has been counted, but for outcomes that were digests then.
            if any(text.startswith(DIGEST) for text in pair) or (is_again and max(map(len, pair)) <= LONGEST_OUTCOME):
                continue
            self._transitions.update(step for step in self.task.steps(*pair) if max(map(len, step)) <= LONGEST_SHOWN)
        if len(self._transitions) > MOST_TRANSITIONS:
            self._transitions = Counter(dict(self._transitions.most_common(MOST_TRANSITIONS // 2)))

    def _draw(self, place: Place) -> None:
        """Every changed row has the same chance to be shown."""
        self.n_changed += 1
        if len(self._drawn) < self._wanted:
            self._drawn.append(place)
        elif (number := self._generator.randrange(self.n_changed)) < self._wanted:
            self._drawn[number] = place

    def _add_vectors(self, old: Rows, new: Rows, before: Outcome, after: Outcome) -> None:
        assert before.vectors is not None
        assert after.vectors is not None
        sizes = before.vectors.shape[1], after.vectors.shape[1]
        if sizes[0] != sizes[1]:
            self.cosines.sizes = sizes
            return
        values = cosines_of(before.vectors, after.vectors)
        self.cosines.values.append(values)
        worst: Long = np.argsort(values, kind="stable")[: self._wanted]
        for index in worst.tolist():
            # A heap of the least ones has the largest of them on top.
            heapq.heappush(self._farthest, (-float(values[index]), _place(old, new, index)))
            if len(self._farthest) > self._wanted:
                heapq.heappop(self._farthest)


def cosines_of(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each row `[rows, dimensions]`; 1 for two zero vectors, 0 for one of them."""
    lengths = [np.linalg.norm(vectors.astype(np.float64), axis=1) for vectors in (old, new)]
    dots = np.einsum("ij,ij->i", old.astype(np.float64), new.astype(np.float64))
    product = lengths[0] * lengths[1]
    are_zero = (lengths[0] == 0) & (lengths[1] == 0)
    found = np.where(are_zero, 1.0, dots / np.where(product > 0, product, 1.0))
    return np.clip(found, -1, 1).astype(np.float32)


def _place(old: Rows, new: Rows, index: int) -> Place:
    return (int(old.shard[index]), int(old.row[index])), (int(new.shard[index]), int(new.row[index]))
