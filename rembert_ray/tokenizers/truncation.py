"""Shortening texts to a number of tokens, and cutting what is left over into further rows that overlap.

Works on whole ragged batches of ids before the template is applied; it must not know the template, only how much
room it leaves.

Overflow has the form of the `tokenizers` library for every class: further rows, and the sample of each row. The slow
tokenizers of transformers 4.x gave one flat list `overflowing_tokens` instead, without offsets and without a mask,
from which the windows of question answering cannot be made; nothing in the official task guides reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding, Lengths

Side = Literal["left", "right"]
LongestFirst = Callable[[Lengths, Lengths, int], tuple[Lengths, Lengths]]


def take_one_at_a_time(first: Lengths, second: Lengths, room: int) -> tuple[Lengths, Lengths]:
    """How many tokens of each text [n] are kept so that a row has at most `room` tokens.

    One token at a time is taken from the longer text, from the second when both are equal: 'longest_first' of the
    slow tokenizers of transformers 4.x.
    """
    excess = np.maximum(first + second - room, 0)
    from_longer = np.minimum(excess, np.abs(first - second))
    first_is_longer = first > second
    rest = excess - from_longer
    kept_first = first - np.where(first_is_longer, from_longer, 0) - rest // 2
    kept_second = second - np.where(first_is_longer, 0, from_longer) - (rest + 1) // 2
    return np.maximum(kept_first, 0), np.maximum(kept_second, 0)


def share_evenly(first: Lengths, second: Lengths, room: int) -> tuple[Lengths, Lengths]:
    """The same, as the `tokenizers` library does it: an odd token goes to the text that was longer, to the second
    when both are equal.
    """
    is_too_long = first + second > room
    shorter = np.minimum(first, second)
    longer = np.where(shorter > room, shorter, np.maximum(shorter, room - shorter))
    is_halved = shorter + longer > room
    shorter = np.where(is_halved, room // 2, shorter)
    longer = np.where(is_halved, room // 2 + room % 2, longer)
    first_is_longer = first > second
    kept_first = np.where(first_is_longer, longer, shorter)
    kept_second = np.where(first_is_longer, shorter, longer)
    return np.where(is_too_long, kept_first, first), np.where(is_too_long, kept_second, second)


def kept_lengths(
    first: Encoding, second: Encoding | None, room: int, strategy: str, longest_first: LongestFirst
) -> tuple[Lengths, Lengths | None]:
    """Tokens [n] that are kept of each text for rows of at most `room` tokens.

    `strategy` is 'longest_first', 'only_first' or 'only_second'. Raises `ValueError` when the one text that may be
    shortened does not exist or is too short, naming the row.
    """
    n_first = first.lengths
    if second is None:
        if strategy == "only_second" and (n_first > room).any():
            raise ValueError('truncation="only_second" needs a second text: give text_pair')
        return np.minimum(n_first, room), None
    n_second = second.lengths
    if strategy == "longest_first":
        return longest_first(n_first, n_second, room)
    excess = np.maximum(n_first + n_second - room, 0)
    shortened = n_first if strategy == "only_first" else n_second
    impossible = np.flatnonzero((excess > 0) & (excess >= shortened))
    if len(impossible):
        row = int(impossible[0])
        raise ValueError(
            f'truncation="{strategy}" cannot make row {row} short enough: its texts have {n_first[row]} and '
            f"{n_second[row]} tokens and there is room for {room}; raise max_length or truncate the other text"
        )
    return (n_first - excess, n_second) if strategy == "only_first" else (n_first, n_second - excess)


def keep_one_end(encoding: Encoding, kept: Lengths, side: Side) -> Encoding:
    """`kept[i]` tokens of each row i; `side` is where tokens are taken away."""
    starts = encoding.lengths - kept if side == "left" else np.zeros_like(kept)
    return encoding.windows(np.arange(len(encoding)), starts, kept)


def cut_overflow(
    first: Encoding, second: Encoding | None, kept: tuple[Lengths, Lengths | None], overlap: int, side: Side
) -> tuple[Encoding, Encoding | None, Lengths]:
    """All of each text as windows of `kept[i]` tokens, of which neighbours share `overlap`; and the sample of each
    row, int64 [m].

    The first window of a row is what plain truncation keeps; with `side` 'left' windows go from the end to the
    beginning. Where both texts have several windows, all combinations follow, in the order of the `tokenizers`
    library. Raises `ValueError` when a window is not longer than the overlap, naming the row.
    """
    firsts = _cut(first, kept[0], overlap, side)
    if second is None or kept[1] is None:
        return first.windows(*firsts), None, firsts[0]
    seconds = _cut(second, kept[1], overlap, side)
    n_first, n_second = (np.bincount(cut[0], minlength=len(first)) for cut in (firsts, seconds))
    chosen = np.array(_combinations(n_first.tolist(), n_second.tolist()), dtype=np.int64).reshape(-1, 3)
    rows, pick_first, pick_second = chosen.T
    of_first = splits(n_first)[rows] + pick_first
    of_second = splits(n_second)[rows] + pick_second
    return (
        first.windows(*(part[of_first] for part in firsts)),
        second.windows(*(part[of_second] for part in seconds)),
        rows,
    )


def _cut(encoding: Encoding, kept: Lengths, overlap: int, side: Side) -> tuple[Lengths, Lengths, Lengths]:
    """Windows of the rows of one text: row, start, length, each int64 [m]."""
    lengths = encoding.lengths
    is_cut = kept < lengths
    too_short = np.flatnonzero(is_cut & (kept <= overlap))
    if len(too_short):
        row = int(too_short[0])
        raise ValueError(
            f"stride (the overlap) is {overlap}, but row {row} has room for only {kept[row]} tokens of the text that "
            "is cut: give a smaller stride or a larger max_length"
        )
    step = np.where(is_cut, kept - overlap, 1)
    n_windows = 1 + np.where(is_cut, -(-(lengths - kept) // step), 0)
    rows = np.repeat(np.arange(len(encoding)), n_windows)
    moved = (np.arange(len(rows)) - splits(n_windows)[:-1][rows]) * step[rows]
    window = np.minimum(kept[rows], lengths[rows] - moved)
    return rows, lengths[rows] - moved - window if side == "left" else moved, window


def _combinations(n_first: list[int], n_second: list[int]) -> list[tuple[int, int, int]]:
    combinations = []
    for row, (n, m) in enumerate(zip(n_first, n_second, strict=True)):
        combinations.append((row, 0, 0))
        combinations += [(row, a, b) for a in range(1, n) for b in range(m)]
        combinations += [(row, 0, b) for b in range(1, m)]
    return combinations
