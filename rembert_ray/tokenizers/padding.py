"""Rectangular batches as Hugging Face's tokenizers return them: padding, and columns as lists or arrays.

Only `__call__` and `pad` of the tokenizers use this. The jobs stay ragged and never come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.truncation import Side

FILLERS: Mapping[str, int] = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
"""What stands in the padding of each column, beside `input_ids`, which has the pad token there."""


def pad_rows(encoding: Encoding, width: int, pad_id: int, side: Side) -> tuple[Encoding, NDArray[np.bool_]]:
    """Rows that are at least `width` tokens long, and bool [total] which tokens are no padding.

    A row that is longer than `width` stays as it is, as in transformers. Padding looks like the template's tokens:
    offsets (0, 0), no word, no sequence; its type id is 0.
    """
    lengths = encoding.lengths
    row_splits = splits(np.maximum(lengths, width))
    total = int(row_splits[-1])
    starts = row_splits[1:] - lengths if side == "left" else row_splits[:-1]
    index = ragged_arange(starts, lengths)
    is_token = np.zeros(total, dtype=np.bool_)
    is_token[index] = True

    def spread(flat: NDArray[Any] | None, filler: int) -> Any:
        if flat is None:
            return None
        padded = np.full((total, *flat.shape[1:]), filler, dtype=flat.dtype)
        padded[index] = flat
        return padded

    padded = Encoding(
        ids=spread(encoding.ids, pad_id),
        row_splits=row_splits,
        offsets=spread(encoding.offsets, 0),
        type_ids=spread(encoding.type_ids, 0),
        sequence_ids=spread(encoding.sequence_ids, -1),
        word_ids=spread(encoding.word_ids, -1),
    )
    return padded, is_token


def flat_columns(encoding: Encoding, is_token: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Every column that can be asked for by Hugging Face's name, flat [total]; `offset_mapping` [total, 2]."""
    assert encoding.offsets is not None, "a call always encodes with offsets"
    assert encoding.sequence_ids is not None, "the template has been applied"
    return {
        "input_ids": encoding.ids,
        "token_type_ids": np.zeros_like(encoding.ids) if encoding.type_ids is None else encoding.type_ids,
        "attention_mask": is_token.astype(np.int64),
        "special_tokens_mask": (encoding.sequence_ids < 0).astype(np.int64),
        "offset_mapping": encoding.offsets,
    }


def to_lists(flat: NDArray[Any], row_splits: NDArray[np.int64]) -> list[list[Any]]:
    """A flat column [total] as a list of rows; of pairs [total, 2] as rows of tuples."""
    bounds = row_splits.tolist()
    values = flat.tolist() if flat.ndim == 1 else list(map(tuple, flat.tolist()))
    return [values[start:end] for start, end in pairwise(bounds)]


def to_array(flat: NDArray[Any], row_splits: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    """A flat column as an int64 array [n, width].

    Raises `ValueError` when rows have unequal lengths.
    """
    lengths = np.diff(row_splits)
    width = int(lengths.max(initial=0))
    if (lengths != width).any():
        raise ValueError(
            f"rows have unequal lengths ({lengths.min()} to {width} tokens) and {name} cannot be one tensor: "
            "give padding=True, and truncation=True with it"
        )
    return flat.reshape(len(lengths), width, *flat.shape[1:]).astype(np.int64)
