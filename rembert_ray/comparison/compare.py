"""`rembert-ray compare`: what changed between two outputs of one task, and the rows whose outcome did.

It opens both outputs, lets `matching.py` find the rows that belong together, `changes.py` count, and reads a few
changed rows again. It writes nothing, and a difference is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rembert_ray.comparison.changes import Errors, HeadChanges, Place
from rembert_ray.comparison.matching import decide
from rembert_ray.comparison.result import Change, Comparison
from rembert_ray.comparison.sides import Side
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.fingerprint import ABSENT, Difference, difference
from rembert_ray.report.sample_view import with_inputs
from rembert_ray.report.samples import Sample, rows_at

N_ROWS = 8


def compare(old: str, new: str, key: str | None = None, n_rows: int = N_ROWS) -> Comparison:
    """Hold two outputs against each other, complete or not.

    Args:
        old, new: paths or URLs of outputs of the same task.
        key: a kept column by whose values rows are matched; None: by their places in the input if that is the same,
            else by a usual column (`matching.DEFAULT_KEYS`).
        n_rows: how many changed rows of each head are read to be shown.

    Raises:
        UnusableError: no job there, two different tasks, or nothing to match rows by.
        ShardError, StorageError: a part is damaged, or the store gives out.
    """
    before, after = Side(old), Side(new)
    if before.task.name != after.task.name:
        what = f"task {after.task.name}, the other one is of task {before.task.name}"
        raise UnusableError(Fault(new, what, "name two outputs of one task"))
    matched = decide(before, after, key)
    names = {name for name, _, _ in after.task.heads()}
    heads = [HeadChanges(name, task, n_rows) for name, _, task in before.task.heads() if name in names]
    errors = Errors()
    for first, second in matched.blocks(before, after):
        if not first.is_again:
            errors.add(first, second)
        for head in heads:
            head.add(first, second)
    changes = {head.name: _changes(before, after, head.places) for head in heads}
    return Comparison(before, after, _differences(before, after), matched, errors, heads, changes)


def _differences(old: Side, new: Side) -> list[Difference]:
    """The fields of the fingerprints that differ, and other keys of the manifests; not where the output is."""
    found = difference(old.plan.fingerprint, new.plan.fingerprint)
    known = {item.key for item in found} | {"output.path"}
    before, after = (dict(_flat(side.manifest)) for side in (old, new))
    for name in sorted(before.keys() | after.keys()):
        values = before.get(name, ABSENT), after.get(name, ABSENT)
        if name.removeprefix("input.") not in known and name not in known and values[0] != values[1]:
            found.append(Difference(f"manifest {name}", *values))
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _changes(old: Side, new: Side, places: list[tuple[Place, float | None]]) -> list[Change]:
    """The rows at these places, with what they were made of."""
    before = _samples(old, [first for (first, _), _ in places])
    after = _samples(new, [second for (_, second), _ in places])
    return [Change(before[first], after[second], cosine) for (first, second), cosine in places]


def _samples(side: Side, places: list[tuple[int, int]]) -> dict[tuple[int, int], Sample]:
    rows = list(rows_at(side.output, side.plan, sorted(places)))
    return {(row.shard, row.row): row for row in with_inputs(rows, side.plan, side.task)}
