"""Which neighbouring characters a SentencePiece normalizer may read together, from its precompiled character map.

The map is a trie of UTF-8 byte strings (a double array of darts-clone) and what replaces each of them; the longest
string that fits is replaced. Characters that begin no string of several characters are replaced one by one. It must
not normalize anything.

Source: `src/normalizer.cc` of SentencePiece (the map's form), darts-clone's `darts.h` (the array's form).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange

LongArray = NDArray[np.int64]

N_CODE_POINTS = 0x110000
_SIZE_BYTES = 4
_HAS_VALUE = 0x80000000
_LEAD_BITS = np.array([0x7F, 0x1F, 0x0F, 0x07])
"""Bits of a character's first byte that are its own, by the number of bytes that follow."""


def pair_key(first: LongArray, second: LongArray) -> LongArray:
    """Two code points as one number."""
    return first * N_CODE_POINTS + second


def joined_pairs(charsmap: bytes) -> LongArray:
    """Sorted `pair_key` of all neighbours with which a string of the map begins; `charsmap` empty: there are none."""
    if not charsmap:
        return np.zeros(0, dtype=np.int64)
    size = int.from_bytes(charsmap[:_SIZE_BYTES], "little")
    trie = _Trie(np.frombuffer(charsmap[_SIZE_BYTES : _SIZE_BYTES + size], dtype="<u4"))
    _, first, behind_first = trie.characters(trie.behind(np.zeros(1, dtype=np.int64)))
    parent, second, _ = trie.characters(behind_first)
    return np.unique(pair_key(first[parent], second))


class _Trie:
    """The double array. A place is where the children of a node are counted from: child = place ^ byte."""

    def __init__(self, units: NDArray[np.uint32]) -> None:
        self._units = units.astype(np.int64)
        labels = self._units & 0xFF
        nodes = np.flatnonzero((labels > 0) & (self._units & _HAS_VALUE == 0))
        places = nodes ^ labels[nodes]
        order = np.argsort(places, kind="stable")
        self._nodes, self._places = nodes[order], places[order]

    def behind(self, nodes: LongArray) -> LongArray:
        """The place of each node's children."""
        units = self._units[nodes]
        return nodes ^ (units >> 10) << ((units & 0x200) >> 6)

    def characters(self, places: LongArray) -> tuple[LongArray, LongArray, LongArray]:
        """All characters behind the places [n]: the place's index, the code point, and the place behind; each [m]."""
        found = []
        origins = np.arange(len(places))
        codes = n_left = np.zeros(len(places), dtype=np.int64)
        for step in range(4):
            parents, nodes = self._children(places)
            byte = self._units[nodes] & 0xFF
            if step == 0:
                n_left = (byte >= 0xC0).astype(np.int64) + (byte >= 0xE0) + (byte >= 0xF0)
                codes = byte & _LEAD_BITS[n_left]
            else:
                n_left = n_left[parents] - 1
                codes = codes[parents] << 6 | byte & 0x3F
            origins, places = origins[parents], self.behind(nodes)
            is_whole = n_left == 0
            found.append((origins[is_whole], codes[is_whole], places[is_whole]))
            origins, codes, places, n_left = (part[~is_whole] for part in (origins, codes, places, n_left))
        origins, codes, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return origins, codes, places

    def _children(self, places: LongArray) -> tuple[LongArray, LongArray]:
        """Index of the place and node of each child."""
        first = np.searchsorted(self._places, places)
        n_children = np.searchsorted(self._places, places, side="right") - first
        return np.repeat(np.arange(len(places)), n_children), self._nodes[ragged_arange(first, n_children)]
