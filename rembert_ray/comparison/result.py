"""What a comparison found, as lines for a person and as JSON. Reads nothing; drawing rows is for `view.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rembert_ray.comparison.changes import Errors, HeadChanges
from rembert_ray.comparison.matching import Matched
from rembert_ray.comparison.sides import Side
from rembert_ray.errors import printable
from rembert_ray.fingerprint import ABSENT, Difference, show_value
from rembert_ray.report.sample_view import json_of
from rembert_ray.report.samples import Sample

MOST_DIFFERENCES = 40


@dataclass(frozen=True)
class Change:
    """One row, as it was and as it is; `cosine` of its vectors, where it is shown for them."""

    old: Sample
    new: Sample
    cosine: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two outputs, held against each other. `changes`: for each head some of its changed rows."""

    old: Side
    new: Side
    differences: list[Difference]
    matched: Matched
    errors: Errors
    heads: list[HeadChanges]
    changes: dict[str, list[Change]]

    def lines(self) -> Iterator[str]:
        """For a terminal or a log, without the changed rows."""
        for name, side in (("old", self.old), ("new", self.new)):
            missing = f", {side.n_missing:,} of {side.plan.n_shards:,} shards are not there" if side.n_missing else ""
            yield printable(f"{name:<11} {side.url}: {side.n_rows:,} rows{missing}")
        if not self.differences:
            yield "jobs        the same manifest, model and parameters"
        for item in self.differences[:MOST_DIFFERENCES]:
            yield printable(f"differs     {item}")
        if len(self.differences) > MOST_DIFFERENCES:
            yield f"            and {len(self.differences) - MOST_DIFFERENCES:,} more"
        yield from self._lines_of_rows()
        yield f"errors      {self.errors.n_new:,} new, {self.errors.n_gone:,} gone, {self.errors.n_both:,} in both"
        for head in self.heads:
            yield from self._lines_of_head(head)

    def _lines_of_rows(self) -> Iterator[str]:
        found = self.matched
        how = "by their place in the input" if found.key is None else f"by {found.key}"
        only = f"{found.n_only[0]:,} only in old, {found.n_only[1]:,} only in new"
        yield f"rows        {found.n_both:,} in both, {only}, matched {how}"
        for counts, what in ((found.n_duplicate, "share their key with others"), (found.n_without_key, "have no key")):
            if any(counts):
                yield f"not matched {counts[0]:,} rows of old and {counts[1]:,} of new {what}"
        for note in found.notes:
            yield f"note        {note}"
        if found.n_read_again is not None:
            what = "transitions and cosines count"
            yield f"note        the rows are in another order: {what} {found.n_read_again:,} of them only"
        names = {name for side in (self.old, self.new) for name, _, _ in side.task.heads()}
        for name in sorted(names - {head.name for head in self.heads}):
            yield f"note        head {name!r} is in one of the outputs only"

    def _lines_of_head(self, head: HeadChanges) -> Iterator[str]:
        of = f" of {head.name}" if len(self.heads) > 1 else ""
        if head.n_compared:
            yield f"changed     {head.n_changed:,} of {head.n_compared:,} rows{of} ({head.share_changed:.2%})"
        for old, new, n in head.transitions:
            yield printable(f"            {n:,} x {old or '(empty)'} -> {new or '(empty)'}")
        if head.score_difference is not None:
            yield f"scores      {head.score_difference:+.5f}{of} in the mean, over {head.n_scores:,} rows"
        if head.cosines.sizes is not None:
            yield "cosines     none: {} dimensions in old, {} in new".format(*head.cosines.sizes)
        if cosines := head.cosines.summary():
            yield (
                f"cosines     median {cosines['median']:.5f}, least {cosines['least']:.5f}{of}; below 0.99: "
                f"{cosines['n_below_0.99']:,} of {cosines['n_rows']:,} rows ({cosines['share_below_0.99']:.2%})"
            )

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "old": _side(self.old),
            "new": _side(self.new),
            "differences": [
                {"key": item.key, "old": _value(item.old), "new": _value(item.new)} for item in self.differences
            ],
            "rows": {
                "matched_by": self.matched.key or "place",
                "both": self.matched.n_both,
                "only_old": self.matched.n_only[0],
                "only_new": self.matched.n_only[1],
                "duplicate_keys": self.matched.n_duplicate,
                "without_key": self.matched.n_without_key,
                "notes": self.matched.notes,
            },
            "errors": {"new": self.errors.n_new, "gone": self.errors.n_gone, "both": self.errors.n_both},
            "heads": [self._head(head) for head in self.heads],
        }

    def _head(self, head: HeadChanges) -> dict[str, Any]:
        return {
            "name": head.name,
            "compared": head.n_compared,
            "changed": head.n_changed,
            "share_changed": head.share_changed,
            "transitions": [{"old": old, "new": new, "rows": n} for old, new, n in head.transitions],
            "mean_score_difference": head.score_difference,
            "cosines": head.cosines.summary(),
            "examples": [
                {"old": json_of(change.old), "new": json_of(change.new), "cosine": change.cosine}
                for change in self.changes[head.name]
            ],
        }


def _side(side: Side) -> dict[str, Any]:
    return {
        "output": side.url,
        "task": side.task.name,
        "fingerprint": side.digest,
        "rows": side.n_rows,
        "shards": side.plan.n_shards,
        "shards_missing": side.n_missing,
    }


def _value(value: Any) -> Any:
    return show_value(value) if value is ABSENT else value
