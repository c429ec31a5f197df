"""Batches as other programs take them: rectangles of ids with a mask. It must not know which program computes them.

Making a batch is not timed, which favours the peers: ours packs within its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rembert_ray.engine.packing import Long, WindowTable

Vectors = NDArray[np.float32]
# Ids and mask `[batch, length]` to the sum of each row's hidden states, float32 `[batch, hidden]`.
Forward = Callable[[Tensor, Tensor], Vectors]


@dataclass(frozen=True)
class PaddedBatch:
    """windows: indices into the table. ids, mask: int64 `[batch, length]`; the mask is 1 for tokens."""

    windows: Long
    ids: Tensor
    mask: Tensor


def pad_batches(table: WindowTable, batch_size: int, *, is_sorted: bool) -> list[PaddedBatch]:
    """`batch_size` windows at a time, in order of arrival or longest first, each batch as wide as its longest."""
    lengths = table.lengths
    order = np.argsort(-lengths, kind="stable") if is_sorted else np.arange(len(lengths))
    rows = torch.split(torch.from_numpy(table.ids.astype(np.int64)), lengths.tolist())
    batches = []
    for start in range(0, len(order), batch_size):
        windows = order[start : start + batch_size]
        ids = nn.utils.rnn.pad_sequence([rows[window] for window in windows], batch_first=True)
        mask = torch.arange(ids.shape[1])[None] < torch.from_numpy(lengths[windows])[:, None]
        batches.append(PaddedBatch(windows, ids, mask.long()))
    return batches


def count_tokens(batches: list[PaddedBatch]) -> int:
    """Tokens that are computed, padding included."""
    return sum(batch.ids.numel() for batch in batches)


def run_batches(forward: Forward, batches: list[PaddedBatch]) -> Vectors:
    """One vector for each window, in the order of the table, float32 `[windows, hidden]`."""
    vectors = np.concatenate([forward(batch.ids, batch.mask) for batch in batches])
    places = np.concatenate([batch.windows for batch in batches])
    in_order = np.empty_like(vectors)
    in_order[places] = vectors
    return in_order
