"""Rectangular batches as Hugging Face's tokenizers return them: truncation, padding, tensors.

Only `__call__` of the tokenizers uses this. The jobs stay ragged and never come here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.tokenizers.encoding import Encoding

Lengths = NDArray[np.int64]


def truncate_longest_first(first: Lengths, second: Lengths, room: int) -> tuple[Lengths, Lengths]:
    """How many tokens of each text [n] are kept so that a row has at most `room` tokens.

    One token at a time is taken from the end of the longer text, from the second when both are equal (the
    'longest_first' of transformers 4.x).
    """
    excess = np.maximum(first + second - room, 0)
    from_longer = np.minimum(excess, np.abs(first - second))
    first_is_longer = first > second
    rest = excess - from_longer
    kept_first = first - np.where(first_is_longer, from_longer, 0) - rest // 2
    kept_second = second - np.where(first_is_longer, 0, from_longer) - (rest + 1) // 2
    return np.maximum(kept_first, 0), np.maximum(kept_second, 0)


def to_columns(encoding: Encoding, with_type_ids: bool, with_offsets: bool) -> dict[str, Any]:
    """Hugging Face's columns as lists of rows, without padding."""
    bounds = list(zip(encoding.row_splits[:-1].tolist(), encoding.row_splits[1:].tolist(), strict=True))

    def cut(flat: Any) -> list[list[Any]]:
        return [flat[start:end].tolist() for start, end in bounds]

    columns: dict[str, Any] = {"input_ids": cut(encoding.ids)}
    if with_type_ids:
        columns["token_type_ids"] = cut(_type_ids(encoding))
    columns["attention_mask"] = [[1] * (end - start) for start, end in bounds]
    if with_offsets and encoding.offsets is not None:
        columns["offset_mapping"] = [[tuple(pair) for pair in row] for row in cut(encoding.offsets)]
    return columns


def to_padded(
    encoding: Encoding, width: int | None, pad_id: int, with_type_ids: bool, with_offsets: bool
) -> dict[str, Any]:
    """Hugging Face's columns as int64 arrays [n, width] (offsets [n, width, 2]), padded on the right.

    `width` None is the longest row; a row that is longer than `width` widens the batch, as in transformers.
    """
    lengths = encoding.lengths
    longest = int(lengths.max(initial=0))
    n_columns = longest if width is None else max(width, longest)
    is_token = np.arange(n_columns) < lengths[:, None]

    def spread(flat: Any, filler: int) -> NDArray[np.int64]:
        padded = np.full(is_token.shape + flat.shape[1:], filler, dtype=np.int64)
        padded[is_token] = flat
        return padded

    columns: dict[str, Any] = {"input_ids": spread(encoding.ids, pad_id)}
    if with_type_ids:
        columns["token_type_ids"] = spread(_type_ids(encoding), 0)
    columns["attention_mask"] = is_token.astype(np.int64)
    if with_offsets and encoding.offsets is not None:
        columns["offset_mapping"] = spread(encoding.offsets, 0)
    return columns


def _type_ids(encoding: Encoding) -> NDArray[np.int32]:
    return np.zeros_like(encoding.ids) if encoding.type_ids is None else encoding.type_ids
