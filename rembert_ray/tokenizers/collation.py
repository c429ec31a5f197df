"""Padding of encodings that were made before, as data collators ask for it: `tokenizer.pad(features)`.

It pads the columns that tokenizers make and leaves all others as they are; it must not look at text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rembert_ray.tokenizers.batch_encoding import BatchEncoding, TensorKind, as_tensors
from rembert_ray.tokenizers.limits import Limits
from rembert_ray.tokenizers.padding import FILLERS
from rembert_ray.tokenizers.truncation import Side

Features = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def pad_features(
    features: Features,
    limits: Limits,
    pad_id: int,
    side: Side,
    return_attention_mask: bool,
    return_tensors: TensorKind | None,
) -> BatchEncoding:
    """Rows of equal length from one encoding, a mapping of rows, or a list of encodings.

    Lists, numpy arrays and torch tensors are taken; without `return_tensors` the result is of the kind that was
    given. A missing `attention_mask` is made. Raises `ValueError` when there are no `input_ids`, when encodings have
    different columns, or a column cannot be a tensor.
    """
    columns = _columns(features)
    if "input_ids" not in columns:
        raise ValueError(f"pad needs a column input_ids, got {', '.join(map(repr, columns)) or 'no columns'}")
    kind = return_tensors or _kind_of(columns["input_ids"])
    columns = {name: _as_list(column) for name, column in columns.items()}
    ids = columns["input_ids"]
    is_one = bool(ids) and not isinstance(ids[0], list)
    if is_one:
        columns = {name: [column] for name, column in columns.items()}
    lengths = [len(row) for row in columns["input_ids"]]
    if return_attention_mask and "attention_mask" not in columns:
        columns["attention_mask"] = [[1] * length for length in lengths]
    if limits.pads:
        width = limits.padded_width(max(lengths, default=0))
        for name, filler in {"input_ids": pad_id, **FILLERS}.items():
            if name in columns:
                columns[name] = [_pad(row, width, filler, side) for row in columns[name]]
    if is_one:
        columns = {name: column[0] for name, column in columns.items()}
    return BatchEncoding(as_tensors(columns, kind))


def _columns(features: Features) -> dict[str, Any]:
    if isinstance(features, Mapping):
        return dict(features)
    names = list(features[0]) if len(features) else ["input_ids"]
    for index, feature in enumerate(features):
        missing = [name for name in names if name not in feature]
        if missing:
            raise ValueError(f"encoding {index} has no {', '.join(missing)}, which encoding 0 has")
    return {name: [feature[name] for feature in features] for name in names}


def _kind_of(ids: Any) -> TensorKind | None:
    """The kind of tensor that was given: of the whole column, or of its rows."""
    sample = ids[0] if isinstance(ids, list | tuple) and ids else ids
    if isinstance(sample, np.ndarray):
        return "np"
    return "pt" if hasattr(sample, "detach") else None


def _as_list(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_as_list(item) for item in value] if isinstance(value, list | tuple) else value


def _pad(row: list[Any], width: int, filler: int, side: Side) -> list[Any]:
    padding = [filler] * (width - len(row))
    return padding + row if side == "left" else row + padding
