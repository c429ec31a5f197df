"""Which characters of a text the surface of each of its SentencePiece pieces is: counted, not asked for.

The visible characters of a text and those of its pieces are the same, one after the other, where the normalizer reads
character by character. So the ranges follow from the numbers of visible characters, in a few operations on whole
batches. Texts of which this is not certain are given to `offsets`, the plain way, which has the same result. This file
must not find ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.characters import Characters, CodePoints, code_points
from rembert_ray.tokenizers.encoding import IntArray
from rembert_ray.tokenizers.model_fields import character_map
from rembert_ray.tokenizers.offsets import asked_offsets

LongArray = NDArray[np.int64]

_WORD_MARK = ord("▁")
# The arrays of so many texts, one number a character, stay in the processor's cache: a third less time than for 10,000.
_TEXTS_AT_ONCE = 500
_UNALIGNABLE = 2**30
"""The width of the unknown piece, which stands for any number of characters: more than a text has."""


class AlignedOffsets:
    """Finds the surfaces of pieces for one SentencePiece model.

    Its tables are made at the first use, from the vocabulary and the model's character map: 200 ms and 4 MB for 250,000
    pieces.
    """

    def __init__(self, processor: Any, model: bytes, n_threads: int) -> None:
        self._processor = processor
        self._n_threads = n_threads
        self._characters = Characters(processor, character_map(model))
        self._n_visible, self._n_marks = _widths_of_pieces(processor)
        # Not so in a model that keeps white space or puts the mark behind the word.
        self._marks_begin_words = processor.normalize(" a  b ") == "▁a▁b"

    def find(self, texts: list[str], ids: IntArray, row_splits: LongArray) -> IntArray:
        """Surface ranges [total, 2] in characters of each token's text, given the ids (`row_splits` [n + 1])."""
        offsets = np.empty((len(ids), 2), dtype=np.int32)
        for first in range(0, len(texts), _TEXTS_AT_ONCE):
            bounds = row_splits[first : first + _TEXTS_AT_ONCE + 1]
            tokens = slice(int(bounds[0]), int(bounds[-1]))
            block = texts[first : first + _TEXTS_AT_ONCE]
            offsets[tokens] = self._find_in_block(block, ids[tokens], bounds - bounds[0])
        return offsets

    def _find_in_block(self, texts: list[str], ids: IntArray, row_splits: LongArray) -> IntArray:
        codes, text_splits = code_points(texts), splits(list(map(len, texts)))
        visible = _VisibleText(codes, text_splits, self._characters)
        edges, marks = splits(self._n_visible[ids]), splits(self._n_marks[ids])
        is_aligned = np.diff(edges[row_splits]) == np.diff(visible.row_splits)
        is_aligned &= np.diff(marks[row_splits]) == visible.n_words
        joined = np.searchsorted(text_splits, self._characters.joined(codes), side="right") - 1
        is_aligned[joined] = False

        counts = np.diff(row_splits)
        shift = np.repeat(visible.row_splits[:-1] - edges[row_splits[:-1]], counts)
        ranges = visible.surfaces(edges[:-1] + shift, edges[1:] + shift)
        ranges -= np.repeat(text_splits[:-1], counts)[:, None]
        offsets = ranges.astype(np.int32)
        rest = np.flatnonzero((~is_aligned | (not self._marks_begin_words)) & (counts > 0))
        if len(rest):
            tokens = ragged_arange(row_splits[rest], counts[rest])
            is_blank_piece = self._n_visible[ids[tokens]] == 0
            unaligned = [texts[row] for row in rest]
            offsets[tokens] = asked_offsets(
                self._processor, self._characters, unaligned, is_blank_piece, self._n_threads
            )
        return offsets


class _VisibleText:
    """The visible characters that the normalizer makes of a batch of texts, were each character alone.

    source: [visible], the character that each comes from, among those of all texts.
    row_splits: [n + 1], where those of each text begin.
    n_words: [n], stretches of characters between blanks.
    """

    def __init__(self, codes: CodePoints, text_splits: LongArray, characters: Characters) -> None:
        widths = characters.widths(codes)
        self._positions = np.flatnonzero(widths)
        self._is_expanded = bool(widths.max(initial=0) > 1)
        self.source = np.repeat(self._positions, widths[self._positions]) if self._is_expanded else self._positions
        self.row_splits = np.searchsorted(self.source, text_splits)
        begins_word = widths > 0
        begins_word[1:] &= widths[:-1] == 0
        row_starts = text_splits[:-1][np.diff(text_splits) > 0]
        begins_word[row_starts] = widths[row_starts] > 0
        self.n_words = np.diff(np.searchsorted(np.flatnonzero(begins_word), text_splits))

    def surfaces(self, first: LongArray, behind: LongArray) -> LongArray:
        """Ranges [pieces, 2] of the characters of pieces that hold the visible ones `first` to `behind`, both [pieces].

        A piece without any has an empty range before the next one. Places that there are not give any range.
        """
        source = np.append(self.source, 0)
        n_visible = len(source) - 1
        starts = source[np.clip(first, 0, n_visible)]
        last = source[np.clip(behind - 1, 0, n_visible)]
        ends = np.where(behind > first, last + 1, starts)
        if self._is_expanded:
            # A piece does not cover a character that it begins before and ends inside.
            is_inside = (source[np.clip(behind, 0, n_visible)] == last) & (behind > first) & (starts < last)
            before = np.searchsorted(self._positions, last[is_inside]) - 1
            ends[is_inside] = self._positions[before] + 1
        return np.stack([starts, ends], axis=1)


def _widths_of_pieces(processor: Any) -> tuple[IntArray, IntArray]:
    """Visible characters and word marks of each piece, both int32 [vocabulary]."""
    pieces = processor.id_to_piece(list(range(processor.get_piece_size())))
    bounds = splits(list(map(len, pieces)))
    n_marks = np.diff(splits(code_points(pieces) == _WORD_MARK)[bounds])
    n_visible = np.diff(bounds) - n_marks
    n_visible[processor.unk_id()] = _UNALIGNABLE
    return n_visible.astype(np.int32), n_marks.astype(np.int32)
