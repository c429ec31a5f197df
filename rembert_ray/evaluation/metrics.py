"""The formulas: precision, recall and F1 from counts, errors and correlations from numbers. No rows, no tasks.

Names and values are those of scikit-learn, scipy and seqeval, which Hugging Face's `evaluate` wraps. What cannot be
divided is 0 in precision, recall and F1, and None (there is no such number) everywhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rembert_ray.evaluation.label_columns import MismatchError

MAX_LABELS = 100_000
Double = NDArray[np.float64]


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`, None of nothing."""
    return part / whole if whole else None


def precision_recall_f1(n_right: int, n_predicted: int, n_gold: int) -> tuple[float, float, float]:
    """0 to 1 each; 0 where nothing was predicted, or nothing was there to be found."""
    precision = n_right / n_predicted if n_predicted else 0.0
    recall = n_right / n_gold if n_gold else 0.0
    both = n_predicted + n_gold
    return precision, recall, 2 * n_right / both if both else 0.0


@dataclass
class LabelCounts:
    """How often each label was predicted rightly, was predicted at all, and is in the gold data."""

    right: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)

    def add(self, right: Iterable[str], predicted: Iterable[str], gold: Iterable[str]) -> None:
        """Count further occurrences; a mapping adds its numbers.

        Raises:
            MismatchError: the gold data have so many labels that they cannot be labels.
        """
        self.right.update(right)
        self.predicted.update(predicted)
        self.gold.update(gold)
        if len(self.gold) > MAX_LABELS:
            raise MismatchError(f"more than {MAX_LABELS:,} different labels")

    def merge(self, other: LabelCounts) -> None:
        """Add the counts of another one."""
        self.add(other.right, other.predicted, other.gold)

    def micro(self) -> tuple[float, float, float]:
        """Precision, recall and F1 over all occurrences."""
        return precision_recall_f1(self.right.total(), self.predicted.total(), self.gold.total())

    def macro(self) -> tuple[float | None, float | None, float | None]:
        """Their means over labels that were predicted or are in the gold data, as scikit-learn's; None without any."""
        scores = [(one["precision"], one["recall"], one["f1"]) for one in self.per_label().values()]
        if not scores:
            return None, None, None
        precision, recall, f1 = np.mean(scores, axis=0).tolist()
        return precision, recall, f1

    def per_label(self) -> dict[str, dict[str, float]]:
        """`precision`, `recall`, `f1` of each label, and the `number` of times it is in the gold data."""
        found = {}
        for label in sorted(self.predicted.keys() | self.gold.keys()):
            n_gold = self.gold[label]
            scores = precision_recall_f1(self.right[label], self.predicted[label], n_gold)
            found[label] = dict(zip(("precision", "recall", "f1"), scores, strict=True)) | {"number": n_gold}
        return found

    @property
    def share_no_name(self) -> bool:
        """Whether both sides have labels, and not one of them on both: names that do not match, most likely."""
        return bool(self.predicted and self.gold) and not self.predicted.keys() & self.gold.keys()


def pearson(first: Double, second: Double) -> float | None:
    """Pearson's correlation of two `[n]`; None for less than two pairs, and where one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    first, second = first - first.mean(), second - second.mean()
    # Scaled first: squares of very large or very small numbers leave the range of float64.
    first, second = first / np.abs(first).max(), second / np.abs(second).max()
    return float(np.clip(first @ second / np.sqrt((first @ first) * (second @ second)), -1, 1))


def spearman(first: Double, second: Double) -> float | None:
    """Spearman's rank correlation of two `[n]`, equal values sharing the mean of their ranks; None like `pearson`."""
    return pearson(ranks(first), ranks(second))


def ranks(values: Double) -> Double:
    """Ranks from 1, `[n]`; equal values share the mean of theirs."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Double = (last - (counts - 1) / 2)[index]
    return mean
