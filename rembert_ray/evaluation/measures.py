"""What adds up predictions and labels of many rows, part by part, and gives metrics in the end.

A measure sees two Arrow arrays of equal length: `predictions`, null where a row has an error, and `labels`, never null.
What a task wrote becomes predictions in `scoring.py`; this file knows no task. All but `Regression` stay small whatever
the number of rows. Measures that count labels are in `label_measures.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.evaluation.label_columns import MismatchError
from rembert_ray.evaluation.metrics import Double, pearson, ratio, spearman
from rembert_ray.evaluation.squad import score_answer

Metrics = dict[str, float | None]


class Measure(ABC):
    """The rows of one group so far."""

    decimals: ClassVar[int] = 4
    """How a person sees the metrics."""
    treats_errors: ClassVar[str] = "rows with an error count as wrong"

    @abstractmethod
    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """Count further rows."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another one has counted."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """By name; None where there is no such number."""

    def per_label(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and number of each label; empty for measures without labels."""
        return {}


class Summed(Measure):
    """A measure of a few sums."""

    n_sums: ClassVar[int]

    def __init__(self) -> None:
        self.sums: Double = np.zeros(self.n_sums)

    def merge(self, other: Self) -> None:
        """See `Measure.merge`."""
        self.sums += other.sums


class Accuracy(Summed):
    """The share of rows whose prediction equals the label."""

    n_sums: ClassVar[int] = 2

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; two arrays of one type."""
        self.sums += pc.sum(pc.equal(predictions, labels)).as_py() or 0, len(labels)

    def metrics(self) -> Metrics:
        """`accuracy`."""
        n_right, n_rows = self.sums.tolist()
        return {"accuracy": ratio(n_right, n_rows)}


class Answers(Summed):
    """SQuAD's exact match and F1 of texts against lists of gold answers, in per cent."""

    n_sums: ClassVar[int] = 3
    decimals: ClassVar[int] = 2

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; text, and lists of text."""
        for prediction, golds in zip(predictions.to_pylist(), labels.to_pylist(), strict=True):
            exact, f1 = (0.0, 0.0) if prediction is None else score_answer(prediction, golds)
            self.sums += exact, f1, 1

    def metrics(self) -> Metrics:
        """`exact_match` and `f1`, 0 to 100."""
        exact, f1, n_rows = self.sums.tolist()
        return {"exact_match": ratio(100 * exact, n_rows), "f1": ratio(100 * f1, n_rows)}


class Fills(Summed):
    """Where the right word is among the fills of each mask. White space around words does not count."""

    n_sums: ClassVar[int] = 3

    def __init__(self, n_best: int) -> None:
        super().__init__()
        self.n_best = n_best

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; for each mask a list of text, best first, and lists of text.

        A null instead of a mask's list says that no more masks of the row were read; these count as wrong.

        Raises:
            MismatchError: a row has more masks than labels, or fewer.
        """
        for fills, golds in zip(predictions.to_pylist(), labels.to_pylist(), strict=True):
            read = [words for words in fills or () if words is not None]
            n_unread = len(golds) - len(read)
            if n_unread < 0 or (n_unread and fills is not None and None not in fills):
                raise MismatchError(f"{len(golds)} label(s) for {len(read)} mask(s)")
            for words, gold in zip(read + [[]] * n_unread, golds, strict=True):
                if gold is None:
                    continue
                best = [word.strip() for word in words[: self.n_best]]
                self.sums += best[:1] == [gold.strip()], gold.strip() in best, 1

    def metrics(self) -> Metrics:
        """`accuracy`, and `accuracy@5`: among the best five (or as many as there are fills)."""
        n_first, n_among, n_masks = self.sums.tolist()
        among = {f"accuracy@{self.n_best}": ratio(n_among, n_masks)} if self.n_best > 1 else {}
        return {"accuracy": ratio(n_first, n_masks), **among}


class Regression(Measure):
    """Numbers against numbers. Keeps both, 16 bytes a row: ranks need all of them."""

    treats_errors: ClassVar[str] = "rows with an error are left out"

    def __init__(self) -> None:
        self.pairs: list[Double] = []

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; float64."""
        is_there = np.asarray(predictions.is_valid())
        pairs = np.stack([np.asarray(predictions.fill_null(0)), np.asarray(labels)])
        self.pairs.append(pairs[:, is_there])

    def merge(self, other: Self) -> None:
        """See `Measure.merge`."""
        self.pairs += other.pairs

    def metrics(self) -> Metrics:
        """`mse`, `mae`, `pearson`, `spearman`."""
        predicted, gold = np.concatenate([np.zeros((2, 0)), *self.pairs], axis=1)
        difference = predicted - gold
        return {
            "mse": ratio(float(np.square(difference).sum()), len(gold)),
            "mae": ratio(float(np.abs(difference).sum()), len(gold)),
            "pearson": pearson(predicted, gold),
            "spearman": spearman(predicted, gold),
        }
