"""The formulas, against figures of scikit-learn 1.9 and scipy 1.17 and their properties.

300 random examples of each measure were compared ad hoc with scikit-learn, scipy and seqeval to 1e-9.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.evaluation import metrics
from rembert_ray.evaluation.label_columns import MismatchError
from rembert_ray.evaluation.metrics import LabelCounts, pearson, precision_recall_f1, ranks, spearman


def test_precision_recall_and_f1():
    assert precision_recall_f1(2, 4, 3) == pytest.approx((0.5, 2 / 3, 4 / 7))
    assert precision_recall_f1(0, 0, 0) == (0, 0, 0)
    assert precision_recall_f1(0, 0, 3) == (0, 0, 0)


@given(st.data())
def test_f1_is_the_harmonic_mean_and_bounded(data):
    n_right = data.draw(st.integers(0, 9))
    n_predicted, n_gold = (data.draw(st.integers(n_right, 30)) for _ in range(2))
    precision, recall, f1 = precision_recall_f1(n_right, n_predicted, n_gold)
    assert 0 <= f1 <= 1
    assert min(precision, recall) - 1e-12 <= f1 <= max(precision, recall) + 1e-12
    if n_right:
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_labels_nobody_predicted_and_labels_nobody_has_count_in_the_mean():
    counts = LabelCounts()
    counts.add(right="aa", predicted="aaac", gold="aab")
    assert counts.macro() == pytest.approx(((2 / 3 + 0 + 0) / 3, 1 / 3, 0.8 / 3))
    assert counts.micro() == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert [*counts.per_label()] == ["a", "b", "c"]
    assert counts.per_label()["b"] == {"precision": 0, "recall": 0, "f1": 0, "number": 1}
    assert LabelCounts().macro() == (None, None, None)


def test_names_that_never_match_are_noticed():
    counts = LabelCounts()
    counts.add("", ["LABEL_0"], ["sports"])
    assert counts.share_no_name
    counts.add("", ["sports"], ["travel"])
    assert not counts.share_no_name
    assert not LabelCounts().share_no_name


def test_texts_that_are_all_different_are_no_labels(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_LABELS", 3)
    with pytest.raises(MismatchError, match="more than 3 different labels"):
        LabelCounts().add([], [], ["a", "b", "c", "d"])


def test_equal_values_share_the_mean_of_their_ranks():
    # scipy.stats.rankdata([3, 1, 3, 0])
    assert ranks(np.array([3.0, 1, 3, 0])).tolist() == [3.5, 2, 3.5, 1]


def test_correlations_are_those_of_scipy():
    first, second = np.array([1.0, 2, 3, 4, 4]), np.array([2.0, 1, 4, 3, 9])
    # scipy.stats.pearsonr, scipy.stats.spearmanr
    assert pearson(first, second) == pytest.approx(0.6648955653301003)
    assert spearman(first, second) == pytest.approx(0.7181848464596079)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0]])
def test_there_is_no_correlation_with_nothing_or_a_constant(values):
    assert pearson(np.array(values), np.arange(len(values), dtype=float)) is None


NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=20)


@given(NUMBERS, st.randoms())
def test_correlations_are_bounded_symmetric_and_do_not_depend_on_order_or_scale(pairs, random):
    first, second = np.array(pairs, dtype=float).T
    shuffled = np.array(random.sample(pairs, len(pairs)), dtype=float).T
    for correlation in (pearson, spearman):
        found = correlation(first, second)
        if found is None:
            continue
        assert -1 <= found <= 1
        assert correlation(second, first) == pytest.approx(found, abs=1e-9)
        assert correlation(*shuffled) == pytest.approx(found, abs=1e-9)
        assert correlation(first * 1e200 + 7, second * 1e-200) == pytest.approx(found, abs=1e-9)
        assert correlation(-first, second) == pytest.approx(-found, abs=1e-9)
