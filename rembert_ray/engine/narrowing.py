"""Documents of which less is read: fewer kept tokens or windows, rows refused. No torch, no storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rembert_ray.engine.documents import Documents
from rembert_ray.engine.packing import Long
from rembert_ray.ragged import splits


def keep_tokens(documents: Documents, token_id: int, *, is_id: bool) -> Documents:
    """Documents with only those of their kept tokens that have this id, or only those that have another."""
    table = documents.windows
    window = np.repeat(np.arange(len(table)), np.diff(table.kept_splits))
    is_kept = (table.ids[table.starts[:-1][window] + table.kept] == token_id) == is_id
    n_kept = np.bincount(window[is_kept], minlength=len(table))
    return replace(documents, windows=replace(table, kept=table.kept[is_kept], kept_splits=splits(n_kept)))


def drop_empty_windows(documents: Documents) -> Documents:
    """Documents without the windows of which no token is kept: nothing would be read of them."""
    return _take_windows(documents, np.diff(documents.windows.kept_splits) > 0)


def refuse_rows(documents: Documents, reasons: Mapping[int, str]) -> Documents:
    """Documents in which these rows have an error, unless they have one already, and so no windows."""
    is_bad = np.zeros(len(documents.n_windows), dtype=np.bool_)
    is_bad[list(reasons)] = True
    return replace(
        _take_windows(documents, np.repeat(~is_bad, documents.n_windows)),
        n_tokens=np.where(is_bad, 0, documents.n_tokens),
        truncated=documents.truncated & ~is_bad,
        errors={**reasons, **documents.errors},
    )


def sum_of_rows(values: NDArray[Any], n_windows: Long) -> Long:
    """Sums int64 `[rows]` of whole numbers `[windows]`."""
    row = np.repeat(np.arange(len(n_windows)), n_windows)
    return np.bincount(row, values, minlength=len(n_windows)).astype(np.int64)


def _take_windows(documents: Documents, is_taken: NDArray[np.bool_]) -> Documents:
    n_windows = sum_of_rows(is_taken, documents.n_windows)
    return replace(documents, windows=documents.windows.take(np.flatnonzero(is_taken)), n_windows=n_windows)
