"""Arithmetic of ragged arrays: rows of different lengths, flat, with the boundaries beside them. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]


def splits(lengths: Lengths) -> NDArray[np.int64]:
    """Row lengths `[n]` to row boundaries `[n + 1]`, which start with 0."""
    out = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def ragged_arange(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """`start, start + 1, ...` for each pair of start and length, one after the other: `[sum(lengths)]`."""
    bounds = splits(lengths)
    steps: NDArray[np.int64] = np.arange(bounds[-1], dtype=np.int64)
    return steps + np.repeat(np.asarray(starts, np.int64) - bounds[:-1], lengths)
