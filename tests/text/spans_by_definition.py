"""The answers of a text by their definition: every span of every window, one after the other, in plain Python.

It holds no test. Words are found by looking at characters and their names, not at ranges of code points.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "BOPOMOFO", "IDEOGRAPHIC")


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / math.fsum(powers) for power in powers]


def all_spans(text, windows, parameters):
    """[(score, start, end)] of all spans, best first, with the null answer if it competes; and the null score.

    `windows`: start logits and end logits of the opening token and the tokens of the text, and offsets of the latter.
    """
    spans, null_scores = [], []
    for start_logits, end_logits, offsets in windows:
        starts, ends = softmax(start_logits), softmax(end_logits)
        null_scores.append(starts[0] * ends[0])
        visible = [trim(text, start, end) for start, end in offsets]
        for first in range(len(offsets)):
            for last in range(first, min(first + parameters.max_answer_tokens, len(offsets))):
                of_span = [token for token in visible[first : last + 1] if token is not None]
                if of_span:
                    bounds = of_span[0][0], of_span[-1][1]
                    grown = grow(text, *bounds) if parameters.align_to_words else bounds
                    spans.append((starts[first + 1] * ends[last + 1], *grown))
    if parameters.null_answer:
        spans.append((min(null_scores), 0, 0))
    return sorted(spans, key=lambda span: -span[0]), min(null_scores)


def trim(text, start, end):
    """Characters from the first visible one to the last one, or None."""
    visible = [index for index in range(start, end) if not text[index].isspace()]
    return (visible[0], visible[-1] + 1) if visible else None


def grow(text, start, end):
    """Characters to the ends of the words."""
    while start > 0 and joins(text[start - 1], text[start]):
        start -= 1
    while end < len(text) and joins(text[end - 1], text[end]):
        end += 1
    return start, end


def joins(character, following):
    """Whether two neighbours are of one word."""
    return not any(one.isspace() or is_unspaced(one) for one in (character, following))


@cache
def is_unspaced(character):
    if unicodedata.category(character)[0] == "P" and unicodedata.east_asian_width(character) in "WF":
        return True
    name = unicodedata.name(character, "")
    if "FULLWIDTH" in name:
        return not character.isalnum()
    return any(script in name for script in UNSPACED)


def first_without_overlap(spans, top_k):
    """The best spans of which none shares a character with a better one; the null answer shares none."""
    taken = []
    for span in spans:
        if all(span[1] >= end or span[2] <= start for _, start, end in taken):
            taken.append(span)
        if len(taken) == top_k:
            break
    return taken
