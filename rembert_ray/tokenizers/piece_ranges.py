"""Which characters of a text each of its SentencePiece pieces consumed.

SentencePiece's own answer makes a Python object for every token. Where no piece is unknown, the same ranges follow
from the widths of the pieces and the normalizer's character map, in about half the time. This file must not trim
or interpret the ranges (see `offsets`).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.encoding import IntArray

LongArray = NDArray[np.int64]


class PieceRanges:
    """Finds the ranges of pieces for one SentencePiece model."""

    def __init__(self, processor: Any, n_threads: int) -> None:
        self._processor = processor
        self._n_threads = n_threads
        self._widths: LongArray | None = None

    def find(self, texts: list[str], ids: IntArray, row_splits: LongArray) -> IntArray:
        """Ranges [total, 2] in characters of each text, given its ids (`row_splits` [n + 1])."""
        counts = np.diff(row_splits)
        ranges = np.empty((len(ids), 2), dtype=np.int32)
        is_unknown = splits(ids == self._processor.unk_id())
        rows = np.flatnonzero(is_unknown[row_splits[1:]] == is_unknown[row_splits[:-1]])
        edges = splits(self._piece_widths()[ids])
        is_found = np.zeros(len(texts), dtype=np.bool_)
        if len(rows):
            maps = [pair[1] for pair in self._processor.normalize([texts[i] for i in rows], with_offsets=True)]
            map_splits = splits([len(entries) for entries in maps])
            flat_map = np.fromiter(chain.from_iterable(maps), dtype=np.int32, count=int(map_splits[-1]))
            # A model with byte pieces, whose widths say nothing, fails this and takes the slow way.
            n_edges = edges[row_splits[rows + 1]] - edges[row_splits[rows]] + 1
            is_exact = n_edges == np.diff(map_splits)
            exact = rows[is_exact]
            tokens = ragged_arange(row_splits[exact], counts[exact])
            shift = np.repeat(map_splits[:-1][is_exact] - edges[row_splits[exact]], counts[exact])
            ranges[tokens, 0] = flat_map[edges[tokens] + shift]
            ranges[tokens, 1] = flat_map[edges[tokens + 1] + shift]
            is_found[exact] = True
        rest = np.flatnonzero(~is_found & (counts > 0))
        if len(rest):
            ranges[ragged_arange(row_splits[rest], counts[rest])] = self._ask([texts[i] for i in rest])
        return ranges

    def _ask(self, texts: list[str]) -> IntArray:
        """SentencePiece's own ranges, [tokens of all texts, 2]."""
        mappings = self._processor.encode(texts, return_type="offset_mapping", num_threads=self._n_threads)
        pairs = chain.from_iterable(mapping["offsets"] for mapping in mappings)
        return np.fromiter(chain.from_iterable(pairs), dtype=np.int32).reshape(-1, 2)

    def _piece_widths(self) -> LongArray:
        """Characters per piece, [vocabulary]. Made at first use: it costs 40 ms for 250,000 pieces."""
        if self._widths is None:
            pieces = self._processor.id_to_piece(list(range(self._processor.get_piece_size())))
            self._widths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        return self._widths
