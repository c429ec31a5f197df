"""Profiles and drift: right by hand, silent about chance, loud about change, and never a crash."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.report.drift import compare_profiles
from rembert_ray.report.profile import MOST_LABELS, Labels, Numbers, make_profile

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=60)
NUMBERS = st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=60)


def labels(**counts: int) -> dict[str, pa.Array]:
    return {"label": pa.array([name for name, count in counts.items() for _ in range(count)], pa.string())}


def drift_of(old: dict[str, pa.Array], new: dict[str, pa.Array]):
    return compare_profiles(make_profile(old), make_profile(new), "before")


def test_the_index_of_labels_is_that_of_its_definition():
    (found,) = drift_of(labels(a=8000, b=2000), labels(a=5000, b=5000)).features
    by_hand = (0.5 - 0.8) * math.log(0.5 / 0.8) + (0.5 - 0.2) * math.log(0.5 / 0.2)
    assert found.psi == pytest.approx(by_hand, rel=1e-3)
    assert found.level == "fail"
    assert [(shift.name, shift.old, shift.new) for shift in found.largest] == [("b", 0.2, 0.5), ("a", 0.8, 0.5)]


def test_the_index_of_numbers_is_that_of_their_old_deciles():
    old, new = np.arange(10_000.0), np.arange(5_000.0)
    (found,) = drift_of({"length": pa.array(old)}, {"length": pa.array(new)}).features
    # Five deciles hold a fifth each, five hold nothing; half a percent is the precision of the quantiles.
    assert found.psi > 2
    assert found.level == "fail"
    (same,) = drift_of({"length": pa.array(old)}, {"length": pa.array(old + 0.25)}).features
    assert same.psi < 0.001
    assert same.level == "none"


def test_levels_are_those_that_are_asked_for():
    old, new = make_profile(labels(a=6000, b=4000)), make_profile(labels(a=5000, b=5000))
    assert [
        compare_profiles(old, new, "x", warn, fail).level for warn, fail in ((0.1, 0.2), (0.01, 0.2), (0.01, 0.02))
    ] == [
        "none",
        "warn",
        "fail",
    ]


def test_chance_is_no_drift_in_small_samples():
    generator = np.random.default_rng(1)
    names = np.array([f"label {number}" for number in range(30)])
    flagged = 0
    for _ in range(100):
        # An index of 0.25 and more is usual between two samples of so few rows.
        old, new = ({"label": pa.array(generator.choice(names, 100))} for _ in range(2))
        flagged += drift_of(old, new).level != "none"
    assert flagged <= 12


def test_a_real_change_shows_also_in_small_samples():
    assert drift_of(labels(a=90, b=10), labels(a=30, b=70)).level == "fail"


def test_what_cannot_be_compared_is_said():
    old = {
        "date": pa.array(["2026-11-20"]),
        "gone": pa.array([1.0]),
        "kind": pa.array(["x"]),
        "empty": pa.array([], pa.float64()),
    }
    new = {"date": pa.array(["2026-11-21"]), "new": pa.array([1.0]), "kind": pa.array([1.0]), "empty": pa.array([2.0])}
    found = drift_of(old, new)
    assert found.features == []
    assert found.not_compared == {
        "date": "no value in common",
        "gone": "only in the earlier run",
        "new": "not in the earlier run",
        "kind": "text in one of the runs, numbers in the other",
        "empty": "no values in one of the runs",
    }


def test_many_labels_are_cut_and_still_counted():
    (found,) = make_profile({"token": pa.array([f"t{number}" for number in range(500)] + ["often"] * 5)}).values()
    assert isinstance(found, Labels)
    assert (found.n, len(found.counts), found.others) == (505, MOST_LABELS, 505 - (MOST_LABELS - 1) - 5)
    assert next(iter(found.counts)) == "often"


def test_values_that_many_rows_share_have_their_own_bin():
    ones = {"n_windows": pa.array([1] * 950 + [2] * 50)}
    (found,) = drift_of(ones, {"n_windows": pa.array([0.5] * 1000)}).features
    assert found.level == "fail"
    first, second = found.largest[:2]
    assert (first.name, first.old, first.new) == ("below 1", 0.0, 1.0)
    assert (second.name, second.old, second.new) == ("1", pytest.approx(0.95, abs=0.005), 0.0)


@given(TEXTS, TEXTS)
def test_any_labels_give_an_index_that_is_zero_for_equal_ones(old: list[str | None], new: list[str | None]) -> None:
    there = {"label": pa.array(old, pa.string())}
    for found in drift_of(there, {"label": pa.array(new, pa.string())}).features:
        assert math.isfinite(found.psi)
        assert found.psi >= 0
    assert all(found.psi == 0 for found in drift_of(there, there).features)


@given(NUMBERS, NUMBERS)
def test_any_numbers_give_an_index_that_is_zero_for_equal_ones(
    old: list[float | None], new: list[float | None]
) -> None:
    there = {"score": pa.array(old, pa.float32())}
    for found in drift_of(there, {"score": pa.array(new, pa.float32())}).features:
        assert math.isfinite(found.psi)
        assert found.psi >= 0
    assert all(found.psi == 0 for found in drift_of(there, there).features)


def test_numbers_are_kept_as_values_that_occur():
    (found,) = make_profile({"n": pa.array([1, 1, 2, 500], pa.int32())}).values()
    assert isinstance(found, Numbers)
    assert set(found.quantiles) == {1.0, 2.0, 500.0}
    assert found.mean == 126.0
    assert found.share_below(np.array([0.0, 1.0, 2.0, 499.0, 500.0])) == pytest.approx(
        [0, 0.5, 0.75, 0.75, 1], abs=0.005
    )
