"""What an evaluation found, as a table for a person and as JSON for a program. It reads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rich.cells import cell_len

from rembert_ray.evaluation.label_measures import Counted
from rembert_ray.evaluation.measures import Measure

TOTAL = "all"
NONE = "(none)"
MAX_NAMES_SHOWN = 5


@dataclass
class Group:
    """Rows that are measured together. Rows with an error are among those with or without a label."""

    measure: Measure
    n_rows: int = 0
    n_errors: int = 0
    n_without_label: int = 0

    def merge(self, other: Group) -> None:
        """Add the rows of another one."""
        self.measure.merge(other.measure)
        self.n_rows += other.n_rows
        self.n_errors += other.n_errors
        self.n_without_label += other.n_without_label

    def to_dict(self) -> dict[str, Any]:
        """Counts, metrics (null where there is no such number) and, for labels, `per_label`."""
        counts = {"n_rows": self.n_rows, "n_errors": self.n_errors, "n_without_label": self.n_without_label}
        metrics = {name: _finite(value) for name, value in self.measure.metrics().items()}
        per_label = self.measure.per_label()
        return counts | metrics | ({"per_label": per_label} if per_label else {})


@dataclass
class Evaluation:
    """Metrics of the parts `n_parts` of an output that has `n_planned`; `groups` by the values of the column `by`."""

    task: str
    labels: str
    by: str | None
    n_parts: int
    n_planned: int
    make_measure: Callable[[], Measure]
    groups: dict[Any, Group] = field(default_factory=dict)

    def group(self, value: Any) -> Group:
        """The group of a value; a new one if it is seen for the first time."""
        if value not in self.groups:
            self.groups[value] = Group(self.make_measure())
        return self.groups[value]

    @cached_property
    def total(self) -> Group:
        """All groups together. Ask for it when all parts are in."""
        total = Group(self.make_measure())
        for group in self.groups.values():
            total.merge(group)
        return total

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {"task": self.task, "labels": self.labels, "n_shards": self.n_parts, "n_planned_shards": self.n_planned}
        found |= {"total": self.total.to_dict(), "notes": list(self.notes())}
        if self.by is not None:
            found |= {"by": self.by, "groups": [{"value": _name(v), **g.to_dict()} for v, g in self._sorted_groups()]}
        return found

    def lines(self) -> Iterator[str]:
        """An aligned table, groups as rows and the total last; then what one should know."""
        total = self.total
        head = ["" if self.by is None else self.by, "rows", "errors", "no label", *total.measure.metrics()]
        named = [] if self.by is None else [(_name(value) or NONE, group) for value, group in self._sorted_groups()]
        table = [head, *(_cells(name, group) for name, group in [*named, (TOTAL, total)])]
        widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
        for first, *cells in table:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            yield first + " " * (widths[0] - cell_len(first)) + "  " + numbers
        for note in self.notes():
            yield f"note: {note}"

    def notes(self) -> Iterator[str]:
        """What the numbers do not say."""
        total = self.total
        if self.n_parts < self.n_planned:
            yield f"{self.n_parts:,} of {self.n_planned:,} shards are there: the job is not complete"
        if total.n_errors:
            yield f"{total.measure.treats_errors} ({total.n_errors:,})"
        if total.n_rows == total.n_without_label:
            yield f"no row has a label in {self.labels!r}"
        counts = total.measure.counts if isinstance(total.measure, Counted) else None
        if counts is not None and counts.share_no_name:
            labels, predicted = (_shown(list(side)) for side in (counts.gold, counts.predicted))
            yield f"no label is ever predicted, do the names differ? labels: {labels}; predicted: {predicted}"

    def _sorted_groups(self) -> list[tuple[Any, Group]]:
        return sorted(self.groups.items(), key=lambda item: (item[0] is None, _name(item[0]) or ""))


def _cells(name: str, group: Group) -> list[str]:
    decimals = group.measure.decimals
    counts = [f"{number:,}" for number in (group.n_rows, group.n_errors, group.n_without_label)]
    metrics = ["-" if value is None else f"{value:,.{decimals}f}" for value in group.measure.metrics().values()]
    return [name, *counts, *metrics]


def _name(value: Any) -> str | None:
    """A group's value in one line."""
    return None if value is None else " ".join(str(value).split())


def _shown(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES_SHOWN
    return ", ".join(sorted(names)[:MAX_NAMES_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
