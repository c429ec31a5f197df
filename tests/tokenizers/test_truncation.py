"""Windows cover each text once and overlap as asked; both rules of sharing room keep their promises."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.truncation import cut_overflow, keep_one_end, kept_lengths, share_evenly, take_one_at_a_time


def rows_of(*lengths: int) -> Encoding:
    """Rows whose ids count up from 0."""
    ids = [i for length in lengths for i in range(length)]
    return Encoding(np.array(ids, dtype=np.int32), splits(lengths))


def rows(encoding: Encoding) -> list[list[int]]:
    return [encoding.row(i).ids.tolist() for i in range(len(encoding))]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 20))
def test_sharing_of_room(first: int, second: int, room: int) -> None:
    one, two = np.array([first]), np.array([second])
    for rule in (take_one_at_a_time, share_evenly):
        kept = [int(side[0]) for side in rule(one, two, room)]
        assert sum(kept) == min(room, first + second)
        assert 0 <= kept[0] <= first
        assert 0 <= kept[1] <= second
        if kept != [first, second]:
            # Only the longer is shortened, until both are equal.
            assert abs(kept[0] - kept[1]) <= 1 or kept[first > second] == (first, second)[first > second]


def test_who_gets_the_odd_token() -> None:
    long = np.array([9]), np.array([9])
    assert [int(side[0]) for side in take_one_at_a_time(*long, 7)] == [4, 3]
    assert [int(side[0]) for side in share_evenly(*long, 7)] == [3, 4]
    assert [int(side[0]) for side in share_evenly(np.array([10]), np.array([9]), 7)] == [4, 3]


def test_only_one_text_is_shortened() -> None:
    first, second = rows_of(5, 1), rows_of(4, 1)
    kept = kept_lengths(first, second, 6, "only_first", take_one_at_a_time)
    assert [side.tolist() for side in kept if side is not None] == [[2, 1], [4, 1]]
    with pytest.raises(ValueError, match="row 0 short enough: its texts have 5 and 4 tokens and there is room for 5"):
        kept_lengths(first, second, 5, "only_second", take_one_at_a_time)
    with pytest.raises(ValueError, match="give text_pair"):
        kept_lengths(first, None, 4, "only_second", take_one_at_a_time)
    assert kept_lengths(first, None, 5, "only_second", take_one_at_a_time)[0].tolist() == [5, 1]


def test_one_end_is_kept() -> None:
    kept = np.array([2, 1])
    assert rows(keep_one_end(rows_of(4, 1), kept, "right")) == [[0, 1], [0]]
    assert rows(keep_one_end(rows_of(4, 1), kept, "left")) == [[2, 3], [0]]


def test_windows_of_one_text() -> None:
    def cut(overlap: int, side: str) -> tuple[list[list[int]], list[int]]:
        windows, _, samples = cut_overflow(rows_of(5, 2), None, (np.array([3, 2]), None), overlap, side)  # type: ignore[arg-type]
        return rows(windows), samples.tolist()

    assert cut(0, "right") == ([[0, 1, 2], [3, 4], [0, 1]], [0, 0, 1])
    assert cut(2, "right") == ([[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 1]], [0, 0, 0, 1])
    assert cut(1, "left") == ([[2, 3, 4], [0, 1, 2], [0, 1]], [0, 0, 1])
    with pytest.raises(ValueError, match=r"stride \(the overlap\) is 3, but row 0 has room for only 3"):
        cut(3, "right")


def test_windows_of_two_texts_are_combined_in_the_order_of_the_library() -> None:
    kept = (np.array([2]), np.array([1]))
    first, second, samples = cut_overflow(rows_of(4), rows_of(2), kept, 0, "right")
    assert second is not None
    assert list(zip(rows(first), rows(second), strict=True)) == [
        ([0, 1], [0]),
        ([2, 3], [0]),
        ([2, 3], [1]),
        ([0, 1], [1]),
    ]
    assert samples.tolist() == [0] * 4


@given(
    st.lists(st.integers(0, 30), max_size=4), st.integers(1, 8), st.integers(0, 7), st.sampled_from(["left", "right"])
)
def test_windows_cover_the_text_and_overlap_as_asked(lengths: list[int], room: int, overlap: int, side: str) -> None:
    if overlap >= room:
        return
    encoding = rows_of(*lengths)
    kept = np.minimum(encoding.lengths, room)
    windows, _, samples = cut_overflow(encoding, None, (kept, None), overlap, side)  # type: ignore[arg-type]
    assert sorted(set(samples.tolist())) == list(range(len(lengths)))
    for row, length in enumerate(lengths):
        own = [window for window, sample in zip(rows(windows), samples, strict=True) if sample == row]
        own = own if side == "right" else own[::-1]
        assert sorted({i for window in own for i in window}) == list(range(length))
        assert all(len(set(a) & set(b)) == overlap for a, b in pairwise(own))
        assert all(len(window) <= room for window in own)


def test_no_rows() -> None:
    empty = rows_of()
    kept = np.zeros(0, dtype=np.int64)
    first, second, samples = cut_overflow(empty, empty, (kept, kept), 0, "right")
    assert (len(first), len(second or ()), len(samples)) == (0, 0, 0)
