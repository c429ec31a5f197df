"""Measures that count labels one by one: classes, sets of labels, entities, tags of words. See `measures.Measure`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.evaluation.label_columns import MismatchError
from rembert_ray.evaluation.measures import Measure, Metrics
from rembert_ray.evaluation.metrics import LabelCounts, ratio
from rembert_ray.evaluation.word_tags import Entity, are_plain, entities_of, without_prefixes


class Counted(Measure):
    """A measure of labels that are counted one by one."""

    def __init__(self) -> None:
        self.counts = LabelCounts()
        self.n_right = 0
        self.n_all = 0

    def merge(self, other: Self) -> None:
        """See `Measure.merge`."""
        self.counts.merge(other.counts)
        self.n_right += other.n_right
        self.n_all += other.n_all

    def per_label(self) -> dict[str, dict[str, float]]:
        """See `Measure.per_label`."""
        return self.counts.per_label()


class SingleLabel(Counted):
    """One label a row."""

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; text and text."""
        right = labels.filter(pc.equal(predictions, labels).fill_null(False))
        self.counts.add(_value_counts(right), _value_counts(predictions.drop_null()), _value_counts(labels))
        self.n_right += len(right)
        self.n_all += len(labels)

    def metrics(self) -> Metrics:
        """`accuracy`, and the unweighted means over labels of `f1`, `precision` and `recall`."""
        precision, recall, f1 = self.counts.macro()
        return {"accuracy": ratio(self.n_right, self.n_all), "f1": f1, "precision": precision, "recall": recall}


class MultiLabel(Counted):
    """Any number of labels a row, in any order."""

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; lists of text."""
        for predicted, gold in zip(predictions.to_pylist(), labels.to_pylist(), strict=True):
            found, wanted = set(predicted or ()), set(gold) - {None}
            self.counts.add(found & wanted, found, wanted)
            self.n_right += predicted is not None and found == wanted
            self.n_all += 1

    def metrics(self) -> Metrics:
        """`exact_match`, the share of rows with exactly the right labels; `f1_micro` and `f1_macro`."""
        exact = ratio(self.n_right, self.n_all)
        return {"exact_match": exact, "f1_micro": self.counts.micro()[2], "f1_macro": self.counts.macro()[2]}


class Entities(Counted):
    """Entities that are right in type, start and end."""

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; lists of structs with `entity_group`, `start`, `end`."""
        for predicted, gold in zip(predictions.to_pylist(), labels.to_pylist(), strict=True):
            self.add_entities(_spans(predicted or []), _spans(gold))

    def add_entities(self, found: set[Entity], wanted: set[Entity]) -> None:
        """The entities of one row: (type, start, end)."""
        self.counts.add(*([kind for kind, _, _ in spans] for spans in (found & wanted, found, wanted)))

    def metrics(self) -> Metrics:
        """seqeval's `overall_precision`, `overall_recall`, `overall_f1`."""
        precision, recall, f1 = self.counts.micro()
        return {"overall_precision": precision, "overall_recall": recall, "overall_f1": f1}


class WordTags(Entities):
    """Tags of words, and the entities that they make. A word whose gold tag is null does not count.

    Where the gold tags of a row have no prefixes (parts of speech), those of the predicted ones do not count either: a
    model that tells pieces of words apart says B-NOUN for NOUN.
    """

    def add(self, predictions: pa.Array, labels: pa.Array) -> None:
        """See `Measure.add`; lists of text, null for a word without a tag.

        Raises:
            MismatchError: a row has more words than labels, or fewer.
        """
        for tags, gold in zip(predictions.to_pylist(), labels.to_pylist(), strict=True):
            if tags is not None and len(tags) != len(gold):
                raise MismatchError(f"{len(gold)} label(s) for {len(tags)} word(s)")
            pairs = zip(tags or [None] * len(gold), gold, strict=True)
            counted = [(tag, one) for tag, one in pairs if one is not None]
            found, wanted = [tag for tag, _ in counted], [one for _, one in counted]
            if are_plain(wanted):
                found = without_prefixes(found)
            self.n_right += sum(tag == one for tag, one in zip(found, wanted, strict=True))
            self.n_all += len(counted)
            self.add_entities(entities_of(found), entities_of(wanted))

    def metrics(self) -> Metrics:
        """Those of `Entities`, and `overall_accuracy`, the share of words with the right tag."""
        return super().metrics() | {"overall_accuracy": ratio(self.n_right, self.n_all)}


def _spans(entities: Iterable[Mapping[str, Any]]) -> set[Entity]:
    return {(one["entity_group"], one["start"], one["end"]) for one in entities}


def _value_counts(values: pa.Array) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in values.value_counts().to_pylist()}
