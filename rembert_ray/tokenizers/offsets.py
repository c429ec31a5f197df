"""From SentencePiece's character ranges to the range of each token's own surface text.

SentencePiece gives the characters that a piece consumed, which includes the white space before a word (that
is its '▁') and characters that the normalizer dropped. It gives an empty range to all but the last of several
pieces that came out of one character. This file repairs both; it must not encode anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import IntArray

_UNKNOWN, _VISIBLE, _BLANK = 0, 1, 2
_N_CODE_POINTS = 0x110000


class SurfaceTrimmer:
    """Trims token ranges to their surface; remembers which characters the model's normalizer makes blank.

    A character is blank when the normalizer turns it, on its own, into white space or nothing. It is asked
    once for each character seen, so that the answer is the model's and no list of ours.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kinds: NDArray[np.uint8] = np.zeros(_N_CODE_POINTS, dtype=np.uint8)

    def trim(self, texts: list[str], ranges: IntArray, is_blank_piece: NDArray[np.bool_], counts: Any) -> IntArray:
        """Surface ranges [total, 2] in characters of each token's text.

        `ranges` [total, 2] is what SentencePiece gave, `is_blank_piece` [total] says which pieces are only
        '▁', `counts` [n] is the number of tokens of each text.

        - Blank characters at both ends are cut off: 'word' starts at its 'w'.
        - A piece that is only '▁' becomes an empty range where the next visible character is.
        - The pieces of one expanded character ('½' gives '1', '⁄', '2') all cover that character.

        Starts and ends never decrease within a text. A piece that ends inside an expanded character, having
        begun before it, does not cover that character.
        """
        text_starts = splits([len(text) for text in texts])
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
        n_characters = len(codes)
        if not n_characters:
            return ranges
        base = np.repeat(text_starts[:-1], counts)
        limit = np.repeat(text_starts[1:], counts)
        is_visible = self._kinds_of(codes) == _VISIBLE
        positions = np.arange(n_characters)

        next_visible = np.full(n_characters + 1, n_characters)
        next_visible[:-1] = np.where(is_visible, positions, n_characters)
        next_visible = np.minimum.accumulate(next_visible[::-1])[::-1]
        end_of_last_visible = np.zeros(n_characters + 1, dtype=np.int64)
        end_of_last_visible[1:] = np.maximum.accumulate(np.where(is_visible, positions + 1, 0))

        raw_starts, raw_ends = ranges[:, 0] + base, ranges[:, 1] + base
        starts = np.minimum(next_visible[raw_starts], raw_ends)
        ends = np.maximum(end_of_last_visible[raw_ends], starts)
        comes_from_expansion = (starts == ends) & ~is_blank_piece & (starts < limit)
        ends = np.maximum.accumulate(ends + comes_from_expansion)
        return np.stack([starts - base, ends - base], axis=1).astype(np.int32)

    def _kinds_of(self, codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        kinds = self._kinds[codes]
        for code in np.unique(codes[kinds == _UNKNOWN]):
            # What is left of a blank is the dummy prefix, if the model adds one.
            is_blank = not self._processor.normalize(chr(code)).strip("▁ ")
            self._kinds[code] = _BLANK if is_blank else _VISIBLE
        return self._kinds[codes]
