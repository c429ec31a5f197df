"""SentencePiece's own answer to which characters a piece consumed, repaired to those of its surface: the plain way.

SentencePiece gives the characters that a piece consumed, which includes the white space before a word (that is its '▁')
and characters that the normalizer dropped. It gives an empty range to all but the last of several pieces that came out
of one character. This file repairs both. It makes a Python object for every token (see `aligned_offsets`).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.characters import Characters, code_points
from rembert_ray.tokenizers.encoding import IntArray


def asked_offsets(
    processor: Any, characters: Characters, texts: list[str], is_blank_piece: NDArray[np.bool_], n_threads: int
) -> IntArray:
    """Surface ranges [tokens of all texts, 2] in characters of each token's text; `is_blank_piece` [tokens]."""
    mappings = processor.encode(texts, return_type="offset_mapping", num_threads=n_threads)
    ranges = [mapping["offsets"] for mapping in mappings]
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(ranges)), dtype=np.int32).reshape(-1, 2)
    counts = np.array([len(pairs) for pairs in ranges], dtype=np.int64)
    return trim_ranges(flat, counts, texts, is_blank_piece, characters)


def trim_ranges(
    ranges: IntArray,
    counts: NDArray[np.int64],
    texts: list[str],
    is_blank_piece: NDArray[np.bool_],
    characters: Characters,
) -> IntArray:
    """Surface ranges [total, 2] in characters of each token's text.

    `ranges` [total, 2] is what SentencePiece gave, `counts` [n] is the number of tokens of each text, `is_blank_piece`
    [total] says which pieces are only '▁'.

    - Blank characters at both ends are cut off: 'word' starts at its 'w'.
    - A piece that is only '▁' becomes an empty range where the next visible character is.
    - The pieces of one expanded character ('½' gives '1', '⁄', '2') all cover that character.

    Starts and ends never decrease within a text. A piece that ends inside an expanded character, having begun before
    it, does not cover that character.
    """
    text_starts = splits([len(text) for text in texts])
    codes = code_points(texts)
    n_characters = len(codes)
    if not n_characters:
        return ranges
    base = np.repeat(text_starts[:-1], counts)
    limit = np.repeat(text_starts[1:], counts)
    is_visible = characters.widths(codes) > 0
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
