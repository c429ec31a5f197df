"""What a job will take: tokens, time and cost, each with an interval and with where it is from.

Tokens: estimated by the ratio of tokens to bytes (or rows) of a sample (`token_sample`), times the bytes that footers
tell of what is left; the interval is that of the ratio estimator (Cochran, Sampling Techniques, chapter 6), at 95 %.
Speed is given, or measured by a run. It must not import torch or ray, nor write anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rembert_ray.check import CheckedJob
from rembert_ray.job_spec import job_spec
from rembert_ray.plan import PLAN_PATH, Plan
from rembert_ray.report.speed import Interval, Speed
from rembert_ray.report.token_sample import TokenSample, take_sample
from rembert_ray.storage.commit import list_parts
from rembert_ray.storage.location import exists

# Student's t at 97.5 % for 1 and 2 degrees of freedom; from 3 on a series gives it to two digits.
_STUDENT = {1: 12.706, 2: 4.303}


@dataclass(frozen=True)
class Hardware:
    """What the estimate is for. price_per_hour: of one actor, in whatever currency."""

    n_actors: int
    speed: Speed | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A plan, what of it is left, and what that takes; None for what was not asked for or cannot be told.

    n_shards, n_rows, plan_bytes: of what is left. tokens: with special tokens, repeated ones too, as a run counts them;
    tokens_by: "bytes" or "rows", what they were put in proportion to.
    """

    plan: Plan
    n_shards: int
    n_rows: int
    plan_bytes: int
    hardware: Hardware
    window_tokens: int
    sample: TokenSample | None = None
    tokens: Interval | None = None
    tokens_by: str = ""
    time_s: Interval | None = None
    cost: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; `None` stays null."""
        sample, speed = self.sample, self.hardware.speed
        return {
            "plan": {"plan_id": self.plan.plan_id, "shards": self.plan.n_shards, "rows": self.plan.n_rows},
            "refused": [{"file": url, "reason": reason} for _, url, reason in self.plan.refused],
            "left": {"shards": self.n_shards, "rows": self.n_rows, "plan_bytes": self.plan_bytes},
            "sample": None if sample is None or not sample.tokens else _sample_dict(sample),
            "tokens": self.tokens and self.tokens.to_dict(),
            "tokens_by": self.tokens_by,
            "actors": self.hardware.n_actors,
            "speed": speed and asdict(speed),
            "time_s": self.time_s and self.time_s.to_dict(),
            "price_per_hour": self.hardware.price_per_hour,
            "cost": self.cost and self.cost.to_dict(),
        }


def _sample_dict(sample: TokenSample) -> dict[str, Any]:
    n_tokens, windows = max(sample.n_tokens, 1), np.array(sample.row_windows)
    return {
        "rows": sum(sample.n_rows),
        "places": len(sample.tokens),
        "places_chosen": sample.n_places,
        "is_every_row": sample.is_census,
        "seconds": round(sample.elapsed_s, 3),
        "tokens": sample.n_tokens,
        "tokens_per_row": [{"from": low, "to": high, "rows": n} for low, high, n in histogram(sample.row_tokens)],
        "share_of_rows_with_more_windows": float((windows > 1).mean()),
        "share_of_tokens_repeated": 1 - sample.n_computed / n_tokens,
        "padded_over_read": sample.n_padded / n_tokens,
        "errors": dict(sample.errors.most_common()),
        "unread": sample.unread,
    }


def estimate_job(checked: CheckedJob, hardware: Hardware, *, with_sample: bool = True) -> Estimate:
    """What is left of a job, and what it takes.

    Raises:
        StorageError: a store gives out.
    """
    plan, left = checked.plan, _left(checked)
    n_rows, n_bytes = (plan.shards[name].to_numpy()[left].sum() for name in ("n_rows", "bytes"))
    counts = (plan, len(left), int(n_rows), int(n_bytes), hardware, checked.windows.max_tokens)
    if not with_sample or not len(left):
        return Estimate(*counts)
    sample = take_sample(job_spec(checked, plan, "plan"), plan, left)
    if not sample.tokens:
        return Estimate(*counts, sample)
    # Documents that are cut off do not have tokens in proportion to their bytes.
    by = "bytes" if sum(sample.plan_bytes) and checked.windows.long_documents == "window" else "rows"
    sizes, total = (sample.plan_bytes, n_bytes) if by == "bytes" else (sample.n_rows, n_rows)
    tokens = estimate_total(sample, sizes, float(total))
    time_s = cost = None
    if hardware.speed is not None:
        speed = hardware.speed.tokens_per_s
        # The waiting of the measured run, its start among it, is on the slow side only: it need not come again.
        slowest = speed.low * (hardware.speed.busy or 1.0)
        time_s = tokens.times(1 / speed.high, 1 / speed.expected, 1 / slowest).times(*[1 / hardware.n_actors] * 3)
        if hardware.price_per_hour is not None:
            cost = time_s.times(*[hardware.n_actors * hardware.price_per_hour / 3600] * 3)
    return Estimate(*counts, sample, tokens, by, time_s, cost)


def _left(checked: CheckedJob) -> npt.NDArray[np.int64]:
    """The shards that are not there yet."""
    everything = np.arange(checked.plan.n_shards, dtype=np.int64)
    if not exists(checked.output.child(*PLAN_PATH)):
        return everything
    return np.setdiff1d(everything, list_parts(checked.output, checked.plan.fingerprint.digest))


def estimate_total(sample: TokenSample, sizes: Sequence[float], total: float) -> Interval:
    """Tokens of `total` bytes or rows, from the sizes of the places in the same unit; exact for a census.

    Where few documents hold most of the tokens, and the sample has met none of them, the truth may lie above.
    """
    n, n_tokens = len(sizes), float(sample.n_tokens)
    if sample.is_census:
        return Interval(n_tokens, n_tokens, n_tokens)
    ratio = n_tokens / sum(sizes)
    if n == 1:
        return Interval(ratio * total, n_tokens, math.inf)
    variance = float(((np.array(sample.tokens) - ratio * np.array(sizes)) ** 2).sum()) / (n - 1)
    half = _student(n - 1) * total * math.sqrt(variance / n) / (sum(sizes) / n)
    return Interval(ratio * total, max(ratio * total - half, n_tokens), ratio * total + half)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5)."""
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4 / freedom,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / freedom**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / freedom**3,
    )
    return _STUDENT.get(freedom) or sum(terms)


def histogram(row_tokens: Sequence[int]) -> list[tuple[int, int, int]]:
    """(from, to, rows) in bins that double: 0, 1, 2-3, 4-7, ...; from the first that has a row to the last."""
    bins = np.bincount([int(n).bit_length() for n in row_tokens])
    used = np.flatnonzero(bins)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, -1)
    return [(2 ** (k - 1) if k else 0, 2**k - 1, int(bins[k])) for k in range(first, last + 1)]
