"""How fast the last run on an output was, from what its parts say of themselves, and what padding it was spared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.report.observation import PartFacts
from rembert_ray.report.run_record import Interval, Padding, SlowShard, Speed
from rembert_ray.report.tally import PHASES

N_INTERVALS = 60
N_SLOWEST = 10
PADDED_BATCH = 32


def speed_of(parts: Sequence[PartFacts], factor: float) -> Speed | None:
    """Of one run; `factor`: how many parts stand behind each that was looked at."""
    if not parts:
        return None
    began, ended = min(part.began for part in parts), max(part.ended for part in parts)
    seconds = max(ended - began, 1e-3)
    workers = {part.worker for part in parts}
    # Not the commit, which is still to come when a footer is written.
    stages = {phase: round(factor * sum(part.seconds[phase] for part in parts), 3) for phase in PHASES[:-1]}
    slowest = sorted(parts, key=lambda part: -sum(part.seconds.values()))[:N_SLOWEST]
    return Speed(
        run=parts[-1].run,
        seconds=round(seconds, 3),
        rows_per_s=round(factor * sum(part.n_rows for part in parts) / seconds, 3),
        tokens_per_s=round(factor * sum(part.n_tokens for part in parts) / seconds, 3),
        stages=stages,
        n_actors=len(workers),
        busy=round(min(1.0, stages["infer"] / (len(workers) * seconds)), 4),
        intervals=_intervals(parts, factor, began, began + seconds),
        slowest=[
            SlowShard(
                shard=part.shard,
                source=part.source,
                row_start=part.row_start,
                n_rows=part.n_rows,
                tokens=part.n_tokens,
                seconds=round(sum(part.seconds.values()), 3),
                worker=part.worker,
            )
            for part in slowest
        ],
    )


def _intervals(parts: Sequence[PartFacts], factor: float, began: float, ended: float) -> list[Interval]:
    """The time of a run in equal stretches; what a part holds is spread over the time of its inference."""
    edges = np.linspace(began, ended, N_INTERVALS + 1)
    starts = np.array([part.infer_began for part in parts])
    lasts = np.maximum([part.seconds["infer"] for part in parts], 1e-3)
    # How much of each part, 0 to 1, is done at each edge: [edges, parts].
    done = np.clip((edges[:, None] - starts) / lasts, 0, 1)
    per_s = {
        name: factor * np.diff(done @ np.array([getattr(part, name) for part in parts], float)) / np.diff(edges)
        for name in ("n_rows", "n_tokens")
    }
    return [
        Interval(
            start_s=round(edges[i] - began, 3),
            end_s=round(edges[i + 1] - began, 3),
            rows_per_s=round(float(per_s["n_rows"][i]), 3),
            tokens_per_s=round(float(per_s["n_tokens"][i]), 3),
        )
        for i in range(N_INTERVALS)
    ]


def padding_of(good: pa.Table) -> Padding | None:
    """Rows of one window, 32 at a time in their order: each would be as long as the longest of them."""
    if not good.num_rows:
        return None
    lengths = np.asarray(good.filter(pc.equal(good["n_windows"], 1))["n_tokens"])
    n_whole = len(lengths) // PADDED_BATCH * PADDED_BATCH
    batches = lengths[:n_whole].reshape(-1, PADDED_BATCH)
    if not batches.size or not batches.sum():
        return None
    ratio = PADDED_BATCH * batches.max(axis=1).sum() / batches.sum()
    return Padding(tokens_per_token=round(float(ratio), 4), n_rows=n_whole)
