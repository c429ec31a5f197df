"""Documents on their way from the tokenizer to the device, and from the device to columns. No torch, no storage.

A row of a shard is a document; a document is cut into windows, each of them one input of the model. For a task with
pairs or choices "document" means the row, whatever its windows hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.ragged import as_lists, ragged_arange, splits
from rembert_ray.text.windows import cut_windows
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template

LongDocuments = Literal["window", "truncate", "error"]


@dataclass(frozen=True)
class WindowOptions:
    """How long documents are read: the manifest's `text` section with the model's limit filled in.

    max_tokens: of a window, special tokens included.
    overlap: tokens that neighbouring windows share.
    long_documents: what happens to a document that does not fit one window.
    """

    max_tokens: int
    overlap: int
    long_documents: LongDocuments = "window"


@dataclass(frozen=True)
class Documents:
    """The encoded documents of a shard: what the device needs and what decoding needs.

    windows: all windows, document after document.
    n_windows: int64 `[rows]`, windows of each row; 0 for a row that has an error.
    n_tokens: int64 `[rows]`, tokens of the row's texts that the model reads, special tokens not counted.
    truncated: bool `[rows]`, whether some were left unread.
    errors: why a row has no windows.
    offsets: int32 `[tokens, 2]`, characters of the original text, or None for a task without offsets.
    is_unknown: bool `[tokens]`, tokens that the vocabulary lacks; None where offsets are.
    extras: further columns `[rows]` that the task wants back when it decodes.
    """

    windows: WindowTable
    n_windows: Long
    n_tokens: Long
    truncated: NDArray[np.bool_]
    errors: Mapping[int, str] = field(default_factory=dict)
    offsets: NDArray[np.int32] | None = None
    is_unknown: NDArray[np.bool_] | None = None
    extras: Mapping[str, pa.Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Decodable:
    """The good rows of a shard, for `Task.decode`.

    inputs: the texts (or lists of texts) of each column that the task reads, as they are in the corpus.
    n_tokens, truncated, offsets, is_unknown, extras: see `Documents`.
    n_windows, n_kept: int64 `[rows]`, `[windows]`: windows of each row, tokens that were read of each window.
    values: what the head returned, first axis kept tokens or windows, row after row.
    """

    inputs: Mapping[str, list[Any]]
    n_tokens: Long
    truncated: NDArray[np.bool_]
    n_windows: Long
    n_kept: Long
    values: Mapping[str, NDArray[Any]]
    offsets: NDArray[np.int32] | None = None
    is_unknown: NDArray[np.bool_] | None = None
    extras: Mapping[str, pa.Array] = field(default_factory=dict)


def too_long(n_tokens: int, capacity: int) -> str:
    """The error of a row under `long_documents: error`."""
    return f"{n_tokens:,} tokens, a window takes {capacity:,} (text.long_documents: error)"


def window_texts(
    encoding: Encoding, template: Template, options: WindowOptions, *, keeps_special_tokens: bool, unk_id: int
) -> Documents:
    """Documents of one text each, cut into windows with the template's tokens around them.

    Args:
        encoding: the bare tokens of every text (see `encode_batch(add_special_tokens=False)`).
        template: of the tokenizer.
        options: how long documents are read.
        keeps_special_tokens: whether the special tokens that open and close a document are among the kept ones;
            the others are those that a window owns (see `text.windows`), each token of a document once.
        unk_id: of the token for what the vocabulary lacks.

    Raises:
        ValueError: the overlap leaves nothing new in a window.
    """
    n_opening, n_closing = len(template.opening), len(template.closing)
    capacity = options.max_tokens - n_opening - n_closing
    n_all = encoding.lengths
    is_long = n_all > capacity
    errors, n_tokens = {}, n_all
    if options.long_documents != "window":
        n_tokens = np.minimum(n_all, capacity)
    if options.long_documents == "error":
        errors = {int(row): too_long(int(n_all[row]), capacity) for row in np.flatnonzero(is_long)}
        n_tokens = np.where(is_long, 0, n_all)
    cut = cut_windows(n_tokens, capacity, options.overlap)
    row, start, end, owned_start, owned_end = (
        column[~is_long[cut.row]].astype(np.int64) if errors else column.astype(np.int64)
        for column in (cut.row, cut.start, cut.end, cut.owned_start, cut.owned_end)
    )
    n_windows = np.bincount(row, minlength=len(n_all)).astype(np.int64)
    are_whole = not is_long.any()
    bare = Encoding(encoding.ids, encoding.row_splits)
    windows = template.apply(bare if are_whole else bare.windows(row, start, end - start), None)
    kept_starts, kept_ends = n_opening + owned_start - start, n_opening + owned_end - start
    if keeps_special_tokens:
        is_first = np.r_[True, row[1:] != row[:-1]][: len(row)]
        is_last = np.r_[row[1:] != row[:-1], True][: len(row)]
        kept_starts, kept_ends = kept_starts - n_opening * is_first, kept_ends + n_closing * is_last
    read = encoding
    if encoding.offsets is not None and not are_whole:
        read = encoding.windows(np.arange(len(n_all)), np.zeros_like(n_tokens), n_tokens)
    return Documents(
        windows=WindowTable.from_ranges(windows.ids, windows.row_splits, kept_starts, kept_ends),
        n_windows=n_windows,
        n_tokens=n_tokens,
        truncated=is_long if options.long_documents == "truncate" else np.zeros_like(is_long),
        errors=errors,
        offsets=read.offsets,
        is_unknown=None if read.offsets is None else read.ids == unk_id,
    )


def window_pairs(
    first: Encoding, second: Encoding, template: Template, options: WindowOptions, *, segments: bool
) -> Documents:
    """Documents of two texts each: windows over the second, each with the whole of the first before it.

    Args:
        first, second: the bare tokens of both texts of every row.
        template: of the tokenizer.
        options: how long documents are read; `max_tokens` holds both texts.
        segments: whether the second text is segment 1, where the architecture has one.

    Returns:
        Documents of which every window keeps its opening token and its tokens of the second text. Their extra column
        `window_starts` says for each window of a row which token of the second text is its first. A row that does not
        fit one window has an error where its first text leaves no room for the overlap and one more token.
    """
    n_first, n_second = first.lengths, second.lengths
    room = options.max_tokens - template.size(has_pair=True) - n_first
    is_long = n_second > room
    errors = {
        int(row): f"the first text has {n_first[row]:,} tokens, which leaves {max(int(room[row]), 0):,} for the second"
        for row in np.flatnonzero(is_long & (room <= (options.overlap if options.long_documents == "window" else 0)))
    }
    if options.long_documents == "error":
        errors |= {
            int(row): too_long(int(n_second[row]), int(room[row]))
            for row in np.flatnonzero(is_long)
            if int(row) not in errors
        }
    n_read = np.minimum(n_second, room) if options.long_documents == "truncate" else n_second.copy()
    n_read[list(errors)] = 0
    row, start, end = cut_by_room(n_read, np.maximum(room, 1), options.overlap, errors)
    windows = template.apply(
        first.windows(row, np.zeros_like(row), n_first[row]), second.windows(row, start, end - start)
    )
    before_second = len(template.opening) + n_first[row] + len(template.between)
    n_windows = np.bincount(row, minlength=len(n_first)).astype(np.int64)
    n_kept = 1 + end - start
    kept = ragged_arange(before_second - 1, n_kept)
    kept[splits(n_kept)[:-1]] = 0
    has_segments = segments and template.second_type_id == 1
    second_starts = before_second if has_segments else windows.lengths
    table = WindowTable(
        windows.ids, windows.row_splits, second_starts.astype(np.int32), kept.astype(np.int32), splits(n_kept)
    )
    is_good = n_windows > 0
    return Documents(
        windows=table,
        n_windows=n_windows,
        n_tokens=np.where(is_good, n_first + n_read, 0),
        truncated=is_long & is_good & (options.long_documents == "truncate"),
        errors=errors,
        extras={"window_starts": as_lists(start.astype(np.int32), splits(n_windows))},
    )


def cut_by_room(n_tokens: Long, room: Long, overlap: int, skipped: Mapping[int, str]) -> tuple[Long, Long, Long]:
    """Row, start and end of windows over texts that have different room each, row after row."""
    parts = []
    good = np.array([row for row in range(len(n_tokens)) if row not in skipped], dtype=np.int64)
    for size in np.unique(room[good]):
        rows = good[room[good] == size]
        cut = cut_windows(n_tokens[rows], int(size), min(overlap, int(size) - 1))
        parts.append(np.stack([rows[cut.row], cut.start, cut.end]).astype(np.int64))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    whole = np.concatenate(parts, axis=1)
    row, start, end = whole[:, np.argsort(whole[0], kind="stable")]
    return row, start, end
