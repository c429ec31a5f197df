"""What the output of a job alone says about its speed: when each shard was committed, by whom, and how long it took.

A job's start (Ray, workers, models) and its work are told apart by the first commits. It must not look into a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Commits:
    """The objects of an output in the order of their commits.

    at: unix seconds. n_tokens: of each shard, special tokens included. actors: where each was inferred.
    """

    at: list[float]
    n_tokens: list[int]
    actors: list[str]

    @classmethod
    def of(cls, output: Path) -> Commits:
        """Read the footers and times of all objects."""
        # The link that is the commit changes the inode; the bytes were written before.
        paths = sorted(output.glob("part-*.parquet"), key=lambda path: path.stat().st_ctime_ns)
        footers = [pq.read_metadata(path).metadata for path in paths]
        return cls(
            [path.stat().st_ctime_ns / 1e9 for path in paths],
            [int(footer[b"rembert_ray.n_tokens"]) for footer in footers],
            [footer[b"rembert_ray.inferred_at"].decode() for footer in footers],
        )

    @property
    def n_actors(self) -> int:
        """Actors that committed something."""
        return len(set(self.actors))

    @property
    def window(self) -> tuple[int, int]:
        """Indices of the commits between which all actors work: the last one's first, and the first one's last.

        Raises:
            SystemExit: there is nothing between.
        """
        first = {actor: index for index, actor in reversed(list(enumerate(self.actors)))}
        last = {actor: index for index, actor in enumerate(self.actors)}
        start, end = max(first.values()), min(last.values())
        if end <= start:
            raise SystemExit(
                f"{len(self.at)} shards are too few for {self.n_actors} actors: take more seconds or tokens"
            )
        return start, end

    @property
    def times(self) -> tuple[float, float]:
        """The window in unix seconds."""
        start, end = self.window
        return self.at[start], self.at[end]

    @property
    def tokens_per_s(self) -> float:
        """The rate while all actors work."""
        start, end = self.window
        return sum(self.n_tokens[start + 1 : end + 1]) / (self.at[end] - self.at[start])
