"""Rows of two texts whose first token speaks for the whole window: the longer text is cut, the other one stays whole.

For tasks that read one vector a window (`classify`, `choose`), so no token of these windows is kept. Windows over a
context, whose tokens are read one by one, are `documents.window_pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rembert_ray.engine.documents import Documents, WindowOptions, cut_by_room, too_long
from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.tokenizers.base import PretrainedTokenizer
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template


def pair_table(first: Encoding, second: Encoding, template: Template, *, segments: bool) -> WindowTable:
    """Windows of two texts each, none of their tokens kept.

    Args:
        first, second: the bare tokens of both texts of every window.
        template: of the tokenizer.
        segments: whether the second text is segment 1, where the architecture has one.
    """
    windows = template.apply(first, second)
    before_second = len(template.opening) + first.lengths + len(template.between)
    has_segments = segments and template.second_type_id == 1
    none = np.zeros(len(windows), np.int64)
    second_starts = before_second if has_segments else windows.lengths
    return WindowTable.from_ranges(windows.ids, windows.row_splits, none, none, second_starts)


def window_longer(
    first: Encoding, second: Encoding, tokenizer: PretrainedTokenizer, options: WindowOptions, *, segments: bool
) -> Documents:
    """Documents of two texts each: windows over the longer one (the second, if equal), each with all of the other.

    `long_documents: truncate` takes tokens away from the longer text until both fit, as transformers' truncation
    `longest_first` does. A row whose shorter text leaves no room for the overlap and one more token has an error.

    Args:
        first, second: the bare tokens of both texts of every row.
        tokenizer: whose template and rule for `longest_first` are taken.
        options: how long documents are read; `max_tokens` holds both texts.
        segments: see `pair_table`.
    """
    n_first, n_second = first.lengths, second.lengths
    capacity = max(options.max_tokens - tokenizer.template.size(has_pair=True), 0)
    is_long = n_first + n_second > capacity
    is_truncated = is_long & (options.long_documents == "truncate")
    errors = _unusable(n_first, n_second, capacity, options)
    if is_truncated.any():
        n_first, n_second = tokenizer.longest_first(n_first, n_second, capacity)
    is_bad = np.isin(np.arange(len(first)), list(errors))
    n_shorter, n_longer = np.minimum(n_first, n_second), np.maximum(n_first, n_second)
    row, start, end = cut_by_room(n_longer, np.maximum(capacity - n_shorter, 1), options.overlap, errors)
    cuts_first, whole = n_first[row] > n_second[row], n_shorter[row]
    firsts = first.windows(row, np.where(cuts_first, start, 0), np.where(cuts_first, end - start, whole))
    seconds = second.windows(row, np.where(cuts_first, 0, start), np.where(cuts_first, whole, end - start))
    return Documents(
        windows=pair_table(firsts, seconds, tokenizer.template, segments=segments),
        n_windows=np.bincount(row, minlength=len(first)).astype(np.int64),
        n_tokens=np.where(is_bad, 0, n_first + n_second),
        truncated=is_truncated,
        errors=errors,
    )


def _unusable(n_first: Long, n_second: Long, capacity: int, options: WindowOptions) -> Mapping[int, str]:
    """The rows that cannot be read, and why."""
    if options.long_documents == "truncate":
        return {}
    n_all, n_shorter = n_first + n_second, np.minimum(n_first, n_second)
    is_long = n_all > capacity
    if options.long_documents == "error":
        return {int(row): too_long(int(n_all[row]), capacity) for row in np.flatnonzero(is_long)}
    has_no_room = is_long & (capacity - n_shorter <= options.overlap)
    return {int(row): _no_room(int(n_shorter[row]), capacity, options.overlap) for row in np.flatnonzero(has_no_room)}


def _no_room(n_shorter: int, capacity: int, overlap: int) -> str:
    room = max(capacity - n_shorter, 0)
    return (
        f"the shorter text has {n_shorter:,} tokens, which leaves {room:,} of {capacity:,} for the other one: "
        f"not more than text.overlap, {overlap:,}"
    )
