"""What a SentencePiece model's normalizer makes of single characters, and which neighbours it may read together.

The answers are the model's and no list of ours: it is asked once for each character seen. This file must not know
pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.tokenizers.charsmap import N_CODE_POINTS, joined_pairs, pair_key

CodePoints = NDArray[np.uint32]

_HOLDS_BLANKS, _UNSEEN = 254, 255


def code_points(texts: list[str]) -> CodePoints:
    """The characters of all texts, one text after the other."""
    return np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)


class Characters:
    """The characters of one SentencePiece model: its processor, and its character map."""

    def __init__(self, processor: Any, charsmap: bytes) -> None:
        self._processor = processor
        self._widths = np.full(N_CODE_POINTS, _UNSEEN, dtype=np.uint8)
        pairs = joined_pairs(charsmap)
        self._is_second = np.zeros(N_CODE_POINTS, dtype=np.bool_)
        self._is_second[pairs % N_CODE_POINTS] = True
        # The last one is never found, so that every key has a place in the list.
        self._pairs = np.append(pairs, N_CODE_POINTS**2)

    def widths(self, codes: CodePoints) -> NDArray[np.uint8]:
        """How many visible characters the normalizer makes of each character on its own, [characters].

        0 for a blank: it becomes white space or nothing. For what becomes visible characters with blanks between them,
        the number is too large.
        """
        found = self._widths[codes]
        unseen = codes[found == _UNSEEN]
        if not len(unseen):
            return found
        for code in np.unique(unseen).tolist():
            # What is left of a blank is the dummy prefix, if the model adds one.
            visible = self._processor.normalize(chr(code)).strip("▁ ")
            self._widths[code] = _HOLDS_BLANKS if "▁" in visible else min(len(visible), _HOLDS_BLANKS)
        return self._widths[codes]

    def joined(self, codes: CodePoints) -> NDArray[np.int64]:
        """The places in `codes` of characters that the normalizer may read together with the one before them."""
        seconds = np.flatnonzero(self._is_second[codes[1:]]) + 1
        keys = pair_key(codes[seconds - 1].astype(np.int64), codes[seconds].astype(np.int64))
        joined: NDArray[np.int64] = seconds[self._pairs[np.searchsorted(self._pairs, keys)] == keys]
        return joined
