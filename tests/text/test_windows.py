"""Windows cover a document evenly, and each token is owned where it has most context."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.windows import Windows, cut_windows


def rows_of(windows: Windows, row: int) -> list[tuple[int, int, int, int]]:
    columns = (windows.start, windows.end, windows.owned_start, windows.owned_end)
    return [tuple(int(column[i]) for column in columns) for i in np.flatnonzero(windows.row == row)]


def test_a_document_that_fits_is_one_window() -> None:
    windows = cut_windows(np.array([0, 1, 10]), capacity=10, overlap=3)
    assert windows.row.tolist() == [0, 1, 2]
    assert windows.end.tolist() == windows.owned_end.tolist() == [0, 1, 10]
    assert windows.start.tolist() == windows.owned_start.tolist() == [0, 0, 0]


def test_windows_are_even_and_owned_to_the_middle_of_the_overlap() -> None:
    windows = cut_windows(np.array([11]), capacity=10, overlap=3)
    # 11 + 3 tokens in two windows of 7; tokens 4, 5, 6 are shared, 5 is equally far from both cuts.
    assert rows_of(windows, 0) == [(0, 7, 0, 6), (4, 11, 6, 11)]


def test_no_overlap_is_a_plain_partition() -> None:
    windows = cut_windows(np.array([7]), capacity=3, overlap=0)
    assert rows_of(windows, 0) == [(0, 3, 0, 3), (3, 5, 3, 5), (5, 7, 5, 7)]


def test_no_documents() -> None:
    windows = cut_windows(np.array([], dtype=np.int64), capacity=3, overlap=1)
    assert len(windows) == 0
    assert windows.row.dtype == windows.owned_end.dtype == np.int32


@pytest.mark.parametrize(("capacity", "overlap"), [(10, 10), (10, -1), (0, 0), (5, 7)])
def test_an_overlap_that_leaves_no_progress_is_refused(capacity: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        cut_windows(np.array([100]), capacity, overlap)


limits = st.integers(1, 24).flatmap(lambda capacity: st.tuples(st.just(capacity), st.integers(0, capacity - 1)))


@given(lengths=st.lists(st.integers(0, 120), max_size=6), limit=limits)
def test_properties(lengths: list[int], limit: tuple[int, int]) -> None:
    capacity, overlap = limit
    windows = cut_windows(np.array(lengths, dtype=np.int64), capacity, overlap)
    assert windows.row.tolist() == sorted(windows.row.tolist())
    for row, n_tokens in enumerate(lengths):
        cut = rows_of(windows, row)
        sizes = [end - start for start, end, _, _ in cut]
        assert max(sizes) <= capacity
        assert max(sizes) - min(sizes) <= 1
        assert cut[0][0] == 0
        assert cut[-1][1] == n_tokens
        assert all(left[1] - right[0] >= overlap for left, right in pairwise(cut))
        owned = [token for _, _, start, end in cut for token in range(start, end)]
        assert owned == list(range(n_tokens))
        if len(cut) > 1:
            # One window fewer could not have covered the document.
            assert (len(cut) - 1) * (capacity - overlap) + overlap < n_tokens
        for token in range(n_tokens):
            distances = [context_of(token, window, n_tokens) for window in cut]
            owner = next(i for i, window in enumerate(cut) if window[2] <= token < window[3])
            assert owner == int(np.argmax(distances))


def context_of(token: int, window: tuple[int, int, int, int], n_tokens: int) -> float:
    """Tokens between `token` and the nearest cut; -1 outside the window."""
    start, end = window[:2]
    if not start <= token < end:
        return -1
    left = np.inf if start == 0 else token - start
    right = np.inf if end == n_tokens else end - 1 - token
    return float(min(left, right))
