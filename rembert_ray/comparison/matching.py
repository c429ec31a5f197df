"""Which row of one output belongs to which row of the other one: by its place in the input, or by a kept column.

By place, both outputs are streamed, a few parts of each in memory. By key, all keys and outcomes are held in memory, an
outcome of many characters as its digest; vectors are not. What is not held is read again, in pairs of parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.comparison.sides import DIGEST, LONGEST_OUTCOME, InputFile, Long, Rows, Side, concatenated
from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.storage.ahead import read_ahead

DEFAULT_KEYS = ("id", "doc_id", "url")
BLOCK_ROWS = 65_536
MOST_PAIRS_OF_PARTS = 4096


@dataclass
class Matched:
    """What came of it: `key` is the column, None for the place; counts are rows of the old and of the new output.

    n_read_again: the rows whose vectors or long outcomes were compared, where that were not all.
    """

    key: str | None
    notes: list[str] = field(default_factory=list)
    n_both: int = 0
    n_only: list[int] = field(default_factory=lambda: [0, 0])
    n_duplicate: list[int] = field(default_factory=lambda: [0, 0])
    n_without_key: list[int] = field(default_factory=lambda: [0, 0])
    n_read_again: int | None = None

    def blocks(self, old: Side, new: Side) -> Iterator[tuple[Rows, Rows]]:
        """The rows that are in both outputs, row i of one with row i of the other; each row has outcomes once."""
        return _by_place(old, new, self) if self.key is None else _by_key(old, new, self.key, self)


def decide(old: Side, new: Side, key: str | None) -> Matched:
    """How rows are matched: by the key that is named, else by place where the files are the same, else by a usual key.

    Raises:
        UnusableError: no such kept column in both, or nothing to match rows by.
    """
    if key is not None:
        _check_key(old, new, key)
        return Matched(key)
    before, after = old.files(), new.files()
    common = [name for name in before if name in after and before[name].n_rows and after[name].n_rows]
    changed = [name for name in common if _shape(before[name]) != _shape(after[name])]
    if common and not changed:
        copied = sum(before[name].version != after[name].version for name in common)
        note = f"{copied:,} input files were written anew, at the same size: are these the same rows? else see --key"
        return Matched(None, [note] if copied else [])
    usual = next((name for name in DEFAULT_KEYS if name in old.kept and name in new.kept), None)
    why = f"{len(changed):,} input files have other sizes or rows" if common else "no input file is in both"
    if usual is None:
        both = sorted(set(old.kept) & set(new.kept))
        fix = (
            f"name a column that both jobs kept: {', '.join(both)}" if both else "keep an id in both jobs (input.keep)"
        )
        raise UnusableError(Fault("--key", f"{why}, so that rows have no common place", fix))
    return Matched(usual, [f"{why}: rows are matched by {usual!r}"])


def _shape(file: InputFile) -> tuple[int | None, int]:
    return file.n_rows, file.size_bytes


def _check_key(old: Side, new: Side, key: str) -> None:
    faults = [
        Fault(
            f"--key {key}", f"{side.url} kept no such column", nearest(key, side.kept) if side.kept else "it kept none"
        )
        for side in (old, new)
        if key not in side.kept
    ]
    if faults:
        raise UnusableError(faults)


def _by_place(old: Side, new: Side, found: Matched) -> Iterator[tuple[Rows, Rows]]:
    def read(both: tuple[tuple[int, int], tuple[int, int], int]) -> tuple[Rows, Rows]:
        first, second, n_rows = both
        return old.read(*first, n_rows), new.read(*second, n_rows)

    for first, second in read_ahead(read, _in_both(old, new)):
        found.n_both += len(first.row)
        yield first, second
    found.n_only = [old.n_rows - found.n_both, new.n_rows - found.n_both]


def _in_both(old: Side, new: Side) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Ranges of rows that are there in both outputs, see `_overlaps`."""
    before, after = old.files(), new.files()
    is_there = [np.isin(np.arange(side.plan.n_shards), side.parts) for side in (old, new)]
    for name in before:
        if name in after:
            shards = old.shards_of(before[name].number), new.shards_of(after[name].number)
            for first, second, n_rows in _overlaps(*shards):
                if is_there[0][first[0]] and is_there[1][second[0]]:
                    yield first, second, n_rows


def _overlaps(
    old: list[tuple[int, int, int]], new: list[tuple[int, int, int]]
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int]]:
    """Rows that a shard of each has: (old shard, row in it), (new shard, row in it), how many."""
    left, right = 0, 0
    while left < len(old) and right < len(new):
        (shard, start, end), (other, other_start, other_end) = old[left], new[right]
        first, last = max(start, other_start), min(end, other_end)
        if first < last:
            yield (shard, first - start), (other, first - other_start), last - first
        left, right = left + (end <= other_end), right + (other_end <= end)


def _by_key(old: Side, new: Side, key: str, found: Matched) -> Iterator[tuple[Rows, Rows]]:
    before, after = (_keyed(side, key, found, number) for number, side in enumerate((old, new)))
    assert before.key is not None
    assert after.key is not None
    if before.key.type != after.key.type:
        what = f"its type is {before.key.type} in one output and {after.key.type} in the other"
        raise UnusableError(Fault(f"--key {key}", what, "name a column of one type"))
    place = pc.index_in(before.key, value_set=after.key)
    left = np.flatnonzero(np.asarray(place.is_valid()))
    right = place.drop_null().to_numpy().astype(np.int64)
    found.n_both = len(left)
    found.n_only = [len(before.row) - len(left), len(after.row) - len(left)]
    for start in range(0, len(left), BLOCK_ROWS):
        yield before.take(left[start : start + BLOCK_ROWS]), after.take(right[start : start + BLOCK_ROWS])
    again = _to_read_again(old, before.take(left), after.take(right))
    yield from _again(old, new, before.take(left[again]), after.take(right[again]), found)


def _keyed(side: Side, key: str, found: Matched, number: int) -> Rows:
    """All rows of an output that have a key of their own."""
    sizes = side.plan.shards["n_rows"].to_numpy()

    def read(shard: int) -> Rows:
        return _shortened(side.read(shard, 0, int(sizes[shard]), key))

    rows = concatenated(list(read_ahead(read, side.parts.tolist())))
    assert rows.key is not None
    codes = np.asarray(pc.fill_null(rows.key.dictionary_encode().indices.cast(pa.int64()), -1))
    times = np.bincount(codes[codes >= 0])
    is_single = np.zeros(len(codes), np.bool_)
    is_single[codes >= 0] = times[codes[codes >= 0]] == 1
    found.n_without_key[number] = int((codes < 0).sum())
    found.n_duplicate[number] = int((codes >= 0).sum() - is_single.sum())
    return rows.take(np.flatnonzero(is_single))


def _shortened(rows: Rows) -> Rows:
    """Rows without vectors, and with digests for long outcomes."""
    outcomes = {}
    for name, outcome in rows.outcomes.items():
        text = outcome.text
        if text is not None:
            text = text.cast(pa.large_string())
            is_long = pc.fill_null(pc.greater(pc.utf8_length(text), LONGEST_OUTCOME), False)
            digests = [DIGEST + hashlib.sha256(long.encode()).hexdigest() for long in text.filter(is_long).to_pylist()]
            text = pc.replace_with_mask(text, is_long, pa.array(digests, pa.large_string()))
        outcomes[name] = outcome._replace(text=text, vectors=None)
    return replace(rows, outcomes=outcomes)


def _to_read_again(old: Side, before: Rows, after: Rows) -> Long:
    """The matched rows whose outcomes were not held: all where there are vectors, else changed ones that are long."""
    if any(head.name == "embed" for _, _, head in old.task.heads()):
        return np.arange(len(before.row))
    wanted = np.zeros(len(before.row), np.bool_)
    for name in before.outcomes.keys() & after.outcomes.keys():
        texts = before.outcomes[name].text, after.outcomes[name].text
        if texts[0] is not None and texts[1] is not None:
            is_long = pc.or_(*(pc.starts_with(text, DIGEST) for text in texts))
            wanted |= np.asarray(pc.fill_null(pc.and_(is_long, pc.not_equal(*texts)), False))
    return np.flatnonzero(wanted)


def _again(old: Side, new: Side, before: Rows, after: Rows, found: Matched) -> Iterator[tuple[Rows, Rows]]:
    """Matched rows with all of their outcomes; where too many pairs of parts share rows, those of some pairs."""
    pair = before.shard * new.plan.n_shards + after.shard
    order = np.argsort(pair, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(pair[order])) + 1) if len(order) else []
    if len(groups) > MOST_PAIRS_OF_PARTS:
        groups = [groups[i] for i in np.linspace(0, len(groups) - 1, MOST_PAIRS_OF_PARTS).astype(np.int64)]
        found.n_read_again = sum(map(len, groups))
    for group in groups:
        yield _read_again(old, before.take(group)), _read_again(new, after.take(group))


def _read_again(side: Side, rows: Rows) -> Rows:
    """Rows of one part."""
    first, last = int(rows.row.min()), int(rows.row.max())
    there = side.read(int(rows.shard[0]), first, last - first + 1)
    return replace(there.take(rows.row - first), is_again=True)
