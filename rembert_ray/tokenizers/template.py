"""Putting the special tokens of the sequence template around token ids: `[CLS] A [SEP]`, `[CLS] A [SEP] B
[SEP]`.

Works on whole ragged batches at once; it must not look at texts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.encoding import Encoding, IntArray

Lengths = NDArray[np.int64]


def keep_head(encoding: Encoding, kept: Lengths) -> Encoding:
    """The first `kept[i]` tokens of each row i."""
    index = ragged_arange(encoding.row_splits[:-1], kept)
    return Encoding(
        ids=encoding.ids[index],
        row_splits=splits(kept),
        offsets=None if encoding.offsets is None else encoding.offsets[index],
    )


def apply_template(first: Encoding, second: Encoding | None, cls_id: int | None, sep_id: int | None) -> Encoding:
    """Rows of `first`, each followed by its row of `second` if given, with the template's tokens around them.

    `cls_id` opens a row and `sep_id` closes each text; None leaves it out. `type_ids` are set when there is a
    second text.
    """
    n_cls, n_sep = int(cls_id is not None), int(sep_id is not None)
    first_lengths = first.lengths
    second_lengths = np.zeros_like(first_lengths) if second is None else second.lengths
    n_extra = n_cls + n_sep * (1 if second is None else 2)
    row_splits = splits(first_lengths + second_lengths + n_extra)
    total = int(row_splits[-1])

    first_starts = row_splits[:-1] + n_cls
    second_starts = first_starts + first_lengths + n_sep
    placed = [(ragged_arange(first_starts, first_lengths), first)]
    if second is not None:
        placed.append((ragged_arange(second_starts, second_lengths), second))

    ids = np.zeros(total, dtype=np.int32)
    is_template = np.ones(total, dtype=np.bool_)
    for index, side in placed:
        ids[index] = side.ids
        is_template[index] = False
    if cls_id is not None:
        ids[row_splits[:-1]] = cls_id
    if sep_id is not None:
        ids[first_starts + first_lengths] = sep_id
        if second is not None:
            ids[second_starts + second_lengths] = sep_id

    type_ids: IntArray | None = None
    if second is not None:
        type_ids = np.zeros(total, dtype=np.int32)
        type_ids[ragged_arange(second_starts, second_lengths + n_sep)] = 1
    return Encoding(ids, row_splits, _place_offsets(placed, total), type_ids, is_template)


def _place_offsets(placed: Iterable[tuple[NDArray[np.int64], Encoding]], total: int) -> IntArray | None:
    offsets = np.zeros((total, 2), dtype=np.int32)
    for index, side in placed:
        if side.offsets is None:
            return None
        offsets[index] = side.offsets
    return offsets
