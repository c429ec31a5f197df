"""How fast one actor is: as a person says, or as a run has measured it. It must not import torch or ray."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rembert_ray.check import CheckedJob
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.fingerprint import Difference, difference
from rembert_ray.plan import Plan, require_plan
from rembert_ray.report import status
from rembert_ray.storage.commit import list_parts, part_footers
from rembert_ray.storage.location import Location, locate

N_FOOTERS = 32
SPREAD = (0.1, 0.9)


@dataclass(frozen=True)
class Interval:
    """A number with how sure it is."""

    expected: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: an end that nobody knows is null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

    def times(self, low: float, expected: float, high: float) -> Interval:
        """The product with another number that has an interval."""
        return Interval(self.expected * expected, self.low * low, self.high * high)


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one actor, and where that is from.

    busy: the share of a measured run in which its actors inferred; None where that is not known.
    notes: what makes the measured run another one than this job.
    """

    tokens_per_s: Interval
    source: str
    busy: float | None = None
    notes: tuple[str, ...] = ()


def find_speed(checked: CheckedJob, tokens_per_s: float | None, like: str | None) -> Speed | None:
    """What a person says, else what was measured there; None without either. Raises as `measured_speed` does."""
    if tokens_per_s is not None and like is not None:
        raise UnusableError(Fault("--like", "--tokens-per-s is given, too", "give one of them"))
    if tokens_per_s is not None:
        return Speed(Interval(*[tokens_per_s] * 3), "as given by --tokens-per-s")
    return None if like is None else measured_speed(like, checked)


def measured_speed(like: str, checked: CheckedJob) -> Speed:
    """What the last run of an output did: tokens over the seconds in which its actors inferred.

    The interval goes from its slowest to its fastest tenth of shards (by the footers of some that lie evenly over it).

    Raises:
        UnusableError: there is no such output, or no run of it has measured anything.
    """
    plan, output = require_plan(like), locate(like)
    last = _last_run(output)
    infer_s = 0.0 if last is None else last["worker_seconds"]["infer"]
    if last is None or not last["tokens_this_run"] or not infer_s:
        what = "no run of it has measured a speed yet"
        raise UnusableError(Fault("--like", f"{output}: {what}", "name another output, or give --tokens-per-s"))
    speed = last["tokens_this_run"] / infer_s
    footers = _some_footers(output, plan)
    timed = [(int(f.get("n_tokens", 0)), float(f.get("infer_s", 0))) for f in footers]
    rates = [n_tokens / seconds for n_tokens, seconds in timed if n_tokens and seconds]
    slow, fast = np.quantile(rates, SPREAD) if rates else (speed, speed)
    n_actors = len({f.get("inferred_at") for f in footers if f.get("attempt", "").startswith(last["run"])})
    busy = min(1.0, infer_s / (last["elapsed_s"] * n_actors)) if n_actors and last["elapsed_s"] else None
    source = f"run {last['run']} of {output}, {last['tokens_this_run']:,} tokens in {infer_s:,.0f} s of inference"
    notes = tuple(map(str, _changes(plan, checked)))
    return Speed(Interval(speed, min(slow, speed), max(fast, speed)), source, busy, notes)


def _changes(plan: Plan, checked: CheckedJob) -> list[Difference]:
    """In what that matters for its speed the measured job is another one."""
    found = difference(plan.fingerprint, checked.plan.fingerprint)
    return [item for item in found if item.key in ("model", "task", "precision") or item.key.startswith("head.")]


def _last_run(output: Location) -> Mapping[str, Any] | None:
    """The last status, or that of `_SUCCESS` when the last run had nothing to do."""
    last = status.read(output)
    if last is not None and last["tokens_this_run"]:
        return last
    closed = status.read_success(output) or {}
    return closed["last_run"] | {"run": closed["run"]} if "last_run" in closed else last


def _some_footers(output: Location, plan: Plan) -> list[dict[str, str]]:
    parts = list_parts(output, plan.fingerprint.digest)
    chosen = parts[np.unique(np.linspace(0, len(parts) - 1, N_FOOTERS).astype(np.int64))] if len(parts) else parts
    return list(part_footers(output, plan.fingerprint.digest, chosen))
