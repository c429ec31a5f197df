"""Whether the rows of a run look like those of an earlier one: the population stability index of each feature.

PSI is the sum over bins of (new - old) ln(new / old) of the bins' shares. Credit scoring, where it comes from, calls
less than 0.1 no change and more than 0.25 a large one (Siddiqi, Credit Risk Scorecards, 2006). Between two samples of
one population it is about (1/n_old + 1/n_new) times a chi-square with one degree of freedom less than there are bins
(Yurdakul, Statistical properties of the PSI, 2018): what chance alone can do is no drift, however small the sample.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from rembert_ray.errors import printable
from rembert_ray.report.profile import Labels, Numbers, Profile

WARN, FAIL = 0.1, 0.25
N_NUMBER_BINS = 10
N_SHOWN = 5
# A bin that is empty on one side would make the index infinite.
PSEUDO_COUNT = 0.5
_Z_95 = 1.645

Level = Literal["none", "warn", "fail"]


class Shift(BaseModel):
    """A label, or a range of numbers, with its share of the rows then and now (0 to 1)."""

    name: str
    old: float
    new: float


class FeatureDrift(BaseModel):
    """One feature; `by_chance` is the index that equal populations stay below in 95 of 100 cases."""

    feature: str
    psi: float
    by_chance: float
    level: Level
    n_old: int
    n_new: int
    largest: list[Shift]


class Drift(BaseModel):
    """All features, the one that moved most first, and those that could not be compared, with the reason."""

    against: str
    warn: float
    fail: float
    level: Level
    features: list[FeatureDrift]
    not_compared: dict[str, str]

    @property
    def sentence(self) -> str:
        """`label moved by 0.31 ...`, for a summary line."""
        if not self.features:
            return f"nothing could be compared with {self.against}"
        most = self.features[0]
        moved = ", ".join(f"{shift.name} {shift.old:.1%} -> {shift.new:.1%}" for shift in most.largest[:3])
        verdict = {"none": "no drift", "warn": "some drift", "fail": "drift"}[self.level]
        text = f"{verdict} against {self.against}: {most.feature} moved most, by a PSI of {most.psi:.2f} ({moved})"
        return printable(text)


def compare_profiles(old: Profile, new: Profile, against: str, warn: float = WARN, fail: float = FAIL) -> Drift:
    """The drift from `old` to `new`; `against` is what `old` is called."""
    features, skipped = [], dict.fromkeys(new.keys() - old.keys(), "not in the earlier run")
    skipped |= dict.fromkeys(old.keys() - new.keys(), "only in the earlier run")
    for name in sorted(old.keys() & new.keys()):
        binned = _binned(old[name], new[name])
        if isinstance(binned, str):
            skipped[name] = binned
        else:
            features.append(_feature_drift(name, binned, warn, fail))
    features.sort(key=lambda feature: -feature.psi)
    levels = {feature.level for feature in features}
    level: Level = "fail" if "fail" in levels else "warn" if "warn" in levels else "none"
    return Drift(against=against, warn=warn, fail=fail, level=level, features=features, not_compared=skipped)


class _Bins(NamedTuple):
    """Names of bins, and the counts in each, then and now."""

    names: list[str]
    old: NDArray[np.float64]
    new: NDArray[np.float64]


def _binned(old: Labels | Numbers, new: Labels | Numbers) -> _Bins | str:
    """Both in the same bins; or why that cannot be."""
    if old.n == 0 or new.n == 0:
        return "no values in one of the runs"
    if isinstance(old, Labels) and isinstance(new, Labels):
        # Dates and run ids, which are new every night.
        return _label_bins(old, new) if old.counts.keys() & new.counts.keys() else "no value in common"
    if isinstance(old, Numbers) and isinstance(new, Numbers):
        return _number_bins(old, new)
    return "text in one of the runs, numbers in the other"


def _label_bins(old: Labels, new: Labels) -> _Bins:
    names = list(dict.fromkeys([*old.counts, *new.counts]))
    counts = (np.array([*(side.counts.get(name, 0) for name in names), side.others], float) for side in (old, new))
    return _Bins([*names, "(others)"], *counts)


def _number_bins(old: Numbers, new: Numbers) -> _Bins:
    """The bins lie between the deciles of the old ones, open at both ends; a value with many rows has its own."""
    deciles = np.array(old.quantiles)[:: (len(old.quantiles) - 1) // N_NUMBER_BINS]
    values, n_times = np.unique(deciles, return_counts=True)
    just_below = np.nextafter(values[n_times > 1], -np.inf)
    edges = np.unique(np.concatenate([deciles[1:-1], just_below]))
    counts = (np.diff([0.0, *side.share_below(edges), 1.0]) * side.n for side in (old, new))
    ends = [f"{edge:.4g}" for edge in edges]
    between = (low if low == high else f"{low} to {high}" for low, high in pairwise(ends))
    lowest = "below" if edges[0] in just_below else "up to"
    return _Bins([f"{lowest} {ends[0]}", *between, f"above {ends[-1]}"], *counts)


def _feature_drift(feature: str, bins: _Bins, warn: float, fail: float) -> FeatureDrift:
    used = np.flatnonzero(bins.old + bins.new)
    names, old, new = [bins.names[i] for i in used], bins.old[used], bins.new[used]
    old_shares, new_shares = (
        (counts + PSEUDO_COUNT) / (counts.sum() + PSEUDO_COUNT * len(counts)) for counts in (old, new)
    )
    parts = (new_shares - old_shares) * np.log(new_shares / old_shares)
    psi = float(parts.sum())
    by_chance = (1 / old.sum() + 1 / new.sum()) * _chi_square_95(len(names) - 1)
    is_real = psi > by_chance
    order = np.argsort(-parts)[:N_SHOWN]
    return FeatureDrift(
        feature=feature,
        psi=round(psi, 6),
        by_chance=round(float(by_chance), 6),
        level="fail" if is_real and psi >= fail else "warn" if is_real and psi >= warn else "none",
        n_old=round(old.sum()),
        n_new=round(new.sum()),
        largest=[
            Shift(name=names[i], old=round(old[i] / old.sum(), 6), new=round(new[i] / new.sum(), 6)) for i in order
        ],
    )


def _chi_square_95(degrees: int) -> float:
    """The 95 % quantile, by Wilson and Hilferty's approximation (within 4 % from 1 degree on)."""
    if degrees < 1:
        return 0.0
    return float(degrees * (1 - 2 / (9 * degrees) + _Z_95 * (2 / (9 * degrees)) ** 0.5) ** 3)
