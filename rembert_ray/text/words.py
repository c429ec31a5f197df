"""Where visible text and whole words begin and end, for every character of a text. No tokens, no vocabulary.

A word is a run of characters between white space, as it is for tokenizers that mark spaces (Hugging Face's Metaspace).
Scripts that write no spaces between words would make whole sentences of that: there a character is a word of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Long = NDArray[np.int64]

# Half-open ranges of code points. Unicode's property White_Space.
_WHITE_SPACE = [
    (0x9, 0xE), (0x20, 0x21), (0x85, 0x86), (0xA0, 0xA1), (0x1680, 0x1681), (0x2000, 0x200B), (0x2028, 0x202A),
    (0x202F, 0x2030), (0x205F, 0x2060), (0x3000, 0x3001),
]  # fmt: skip
# Thai, Lao, Tibetan, Myanmar; Khmer; Han, kana and bopomofo with their punctuation; compatibility and full-width forms
# (not full-width digits and letters); the planes of rare Han.
_UNSPACED = [
    (0xE00, 0x10A0), (0x1780, 0x1800), (0x2E80, 0x3130), (0x31A0, 0xA000), (0xF900, 0xFB00), (0xFE30, 0xFE50),
    (0xFF01, 0xFF10), (0xFF1A, 0xFF21), (0xFF3B, 0xFF41), (0xFF5B, 0xFFA0), (0x20000, 0x40000),
]  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """What the bounds of a span become, for a text of n characters.

    - `starts`: int64 [n + 1], by the span's start.
    - `ends`: int64 [n + 1], by its end (the character behind its last one).
    """

    starts: Long
    ends: Long


def trim_bounds(text: str) -> Bounds:
    """White space at the edges of a span falls away: starts move forward, ends move back."""
    n_characters = len(text)
    position = np.arange(n_characters + 1)
    is_visible = ~_is_in(_codes(text), _WHITE_SPACE)
    starts, ends = position.copy(), position.copy()
    starts[:-1][~is_visible] = n_characters
    ends[1:][~is_visible] = 0
    return Bounds(np.minimum.accumulate(starts[::-1])[::-1], np.maximum.accumulate(ends))


def word_bounds(text: str) -> Bounds:
    """A span of visible ends grows to whole words: starts move back, ends move forward."""
    n_characters = len(text)
    position = np.arange(n_characters + 1)
    codes = _codes(text)
    is_alone = _is_in(codes, _WHITE_SPACE) | _is_in(codes, _UNSPACED)
    is_edge = np.ones(n_characters + 1, np.bool_)
    is_edge[1:-1] = is_alone[1:] | is_alone[:-1]
    starts = np.maximum.accumulate(np.where(is_edge, position, 0))
    ends = np.minimum.accumulate(np.where(is_edge, position, n_characters)[::-1])[::-1]
    return Bounds(starts, ends)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _is_in(codes: NDArray[np.uint32], ranges: list[tuple[int, int]]) -> NDArray[np.bool_]:
    is_inside: NDArray[np.bool_] = np.searchsorted(np.ravel(ranges), codes, side="right") % 2 == 1
    return is_inside
