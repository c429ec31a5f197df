"""Packing: every window once, within the budget, evenly; equal windows found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.packing import WindowTable, build_batch, find_equal, pack
from rembert_ray.ragged import ragged_arange, splits

lengths_lists = st.lists(st.integers(1, 64), min_size=1, max_size=80)


@given(lengths_lists, st.integers(1, 300))
def test_every_window_is_in_exactly_one_batch_within_the_budget(lengths, budget):
    lengths = np.array(lengths)
    batches = pack(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].sum() <= budget
    flat = lengths[np.concatenate(batches)]
    assert (np.diff(flat) <= 0).all()


@given(st.lists(st.integers(1, 32), min_size=20, max_size=200))
def test_batches_are_even(lengths):
    lengths = np.array(lengths)
    sizes = [lengths[batch].sum() for batch in pack(lengths, 256)]
    assert max(sizes) - min(sizes) <= 2 * lengths.max()


def test_same_input_same_batches():
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    first, second = pack(lengths, 1440), pack(lengths, 1440)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("lengths", "budget"), [([3, 0], 10), ([3], 0)])
def test_impossible_input_is_refused(lengths, budget):
    with pytest.raises(ValueError, match=r"window without tokens|holds nothing"):
        pack(np.array(lengths), budget)


def test_nothing_to_pack():
    assert pack(np.array([], dtype=np.int64), 10) == []


def windows(*rows, kept=None):
    lengths = np.array([len(row) for row in rows])
    kept = kept or [(1, len(row) - 1) for row in rows]
    starts, ends = zip(*kept, strict=True)
    ids = np.concatenate([np.array(row, np.int32) for row in rows])
    return WindowTable.from_ranges(ids, splits(lengths), np.array(starts, np.int32), np.array(ends, np.int32))


def test_a_batch_is_flat_and_keeps_the_asked_tokens():
    table = windows([4, 10, 11, 5], [4, 12, 5], [4, 13, 14, 15, 5], kept=[(1, 3), (0, 3), (2, 3)])
    batch = build_batch(table, np.array([2, 0, 1]))
    assert batch.ids.tolist() == [4, 13, 14, 15, 5, 4, 10, 11, 5, 4, 12, 5]
    assert batch.ids[batch.kept].tolist() == [14, 10, 11, 4, 12, 5]
    assert batch.kept_lengths.tolist() == [1, 2, 3]


def test_equal_windows_are_found_only_if_the_kept_range_is_equal_too():
    table = windows([4, 7, 5], [4, 7, 5], [4, 8, 5], [4, 7, 5], kept=[(1, 2), (1, 2), (1, 2), (0, 3)])
    first, inverse = find_equal(table)
    assert first.tolist() == [0, 2, 3]
    assert inverse.tolist() == [0, 0, 1, 2]
    assert table.take(first).ids.tolist() == [4, 7, 5, 4, 8, 5, 4, 7, 5]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20))
def test_ragged_arange_is_the_concatenation_of_ranges(pairs):
    starts = np.array([start for start, _ in pairs], dtype=np.int64)
    lengths = np.array([length for _, length in pairs], dtype=np.int64)
    expected = [value for start, length in pairs for value in range(start, start + length)]
    assert ragged_arange(starts, lengths).tolist() == expected
