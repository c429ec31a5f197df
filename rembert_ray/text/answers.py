"""The best spans of one text by the scores of their first and last tokens, over all windows of the text at once.

It sees numbers and character offsets; it must not know a model, a tokenizer or a question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rembert_ray.text.words import Bounds, trim_bounds

Long = NDArray[np.int64]
Double = NDArray[np.float64]


class Span(NamedTuple):
    """A stretch of a text: characters `start` to `end`, and its log probability."""

    log_score: float
    start: int
    end: int


@dataclass(frozen=True)
class TokenScores:
    """The t tokens of all windows of a text, window after window; a token in two windows is there twice.

    - `starts`, `ends`: float64 [t], log probability that the answer begins, or ends, with the token.
    - `room`: int64 [t], tokens from this one to the end of its window, itself included.
    - `index`: int64 [t], which token of the text it is.
    """

    starts: Double
    ends: Double
    room: Long
    index: Long


def answer_bounds(text: str, offsets: NDArray[np.int32]) -> Bounds:
    """Where an answer begins that begins with each token, and ends that ends with it: int64 [tokens], never decreasing.

    A token without visible characters (a lone '▁', a line break) begins an answer where the next visible one does, and
    ends it where the one before does: a span of nothing else has its end before its start.

    Args:
        text: the original text.
        offsets: int32 [tokens, 2], characters of each token.
    """
    trimmed = trim_bounds(text)
    starts, ends = trimmed.starts[offsets[:, 0]], trimmed.ends[offsets[:, 1]]
    is_visible = starts < ends
    starts = np.minimum.accumulate(np.where(is_visible, starts, len(text))[::-1])[::-1]
    return Bounds(starts, np.maximum.accumulate(np.where(is_visible, ends, 0)))


def best_spans(tokens: TokenScores, bounds: Bounds, words: Bounds | None, *, max_tokens: int, top_k: int) -> list[Span]:
    """The `top_k` most probable spans of which no two share a character, the most probable first; fewer if there are.

    A span begins and ends in one window and has at most `max_tokens` tokens. Of equal spans, in the same window or in
    two, the most probable one is taken, the first one of equally probable ones.

    Args:
        tokens: of all windows.
        bounds: of the text's tokens, see `answer_bounds`.
        words: what spans grow to, see `word_bounds`; None leaves them as they are.
        max_tokens: of an answer before it grows, at least 1.
        top_k: at least 1.
    """
    if not len(tokens.index):
        return []
    # Only spans of allowed lengths: [tokens, lengths] instead of [tokens, tokens].
    width = min(max_tokens, int(tokens.room.max()))
    begins, stops = bounds.starts[tokens.index], bounds.ends[tokens.index]
    scores = tokens.starts[:, None] + _following(tokens.ends, width, -np.inf)
    scores[np.arange(width) >= tokens.room[:, None]] = -np.inf
    scores[begins[:, None] >= _following(stops, width, 0)] = -np.inf
    if words is not None:
        begins, stops = words.starts[begins], words.ends[stops]
    found: list[Span] = []
    while len(found) < top_k:
        first, step = divmod(int(scores.argmax()), width)
        best = Span(float(scores[first, step]), int(begins[first]), int(stops[first + step]))
        if best.log_score == -np.inf:
            break
        found.append(best)
        if len(found) < top_k:
            scores[(begins < best.end)[:, None] & (_following(stops, width, 0) > best.start)] = -np.inf
    return found


def _following(values: NDArray[Any], width: int, filler: float) -> NDArray[Any]:
    """For each value itself and the `width - 1` values after it, `[values, width]`: a view."""
    padded = np.concatenate([values, np.full(width - 1, filler, values.dtype)])
    return sliding_window_view(padded, width)
