"""Best spans: as by their definition, for any text, any tokens and any windows."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.answers import TokenScores, answer_bounds, best_spans
from rembert_ray.text.words import word_bounds
from tests.text.spans_by_definition import all_spans, first_without_overlap, softmax

CHARACTERS = "ab  .\n\u3000é\u0301א中文ｗ👩"


@st.composite
def cases(draw):
    """A text, tokens that cover it with empty ones between, and windows over them with some logits."""
    text = draw(st.text(st.sampled_from(CHARACTERS), max_size=24))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=16)))
    bounds = [0, *cuts, len(text)]
    offsets = list(pairwise(bounds))
    n_tokens = len(offsets)
    windows = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, n_tokens))
        windows.append((start, draw(st.integers(start, n_tokens))))
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    return text, offsets, [(first, last, numbers.standard_normal((last - first + 1, 2)) * 3) for first, last in windows]


@given(cases(), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_spans_are_the_best_ones(case, top_k, max_tokens, align_to_words):
    text, offsets, windows = case
    parameters = SimpleNamespace(max_answer_tokens=max_tokens, align_to_words=align_to_words, null_answer=False)
    by_window = [(*logits.T.tolist(), offsets[first:last]) for first, last, logits in windows]
    expected = first_without_overlap(all_spans(text, by_window, parameters)[0], top_k)
    logs = [np.log([softmax(column) for column in logits.T.tolist()])[:, 1:] for _, _, logits in windows]
    index = [np.arange(first, last) for first, last, _ in windows]
    room = [np.arange(last - first, 0, -1) for first, last, _ in windows]
    tokens = TokenScores(*np.concatenate(logs, axis=1), np.concatenate(room), np.concatenate(index))
    bounds = answer_bounds(text, np.array(offsets, np.int32))
    words = word_bounds(text) if align_to_words else None
    found = best_spans(tokens, bounds, words, max_tokens=max_tokens, top_k=top_k)
    assert [(span.start, span.end) for span in found] == [span[1:] for span in expected]
    assert np.exp([span.log_score for span in found]) == pytest.approx([span[0] for span in expected])


def test_a_text_without_tokens_has_no_answer():
    none = np.zeros(0)
    bounds = answer_bounds("", np.zeros((0, 2), np.int32))
    tokens = TokenScores(none, none, none.astype(np.int64), none.astype(np.int64))
    assert best_spans(tokens, bounds, None, max_tokens=3, top_k=2) == []


def test_spans_too_improbable_for_a_float_are_still_told_apart():
    logs = np.array([-2000.0, -1000.0, -3000.0])
    tokens = TokenScores(logs, logs, np.array([3, 2, 1]), np.arange(3))
    bounds = answer_bounds("a b c", np.array([(0, 1), (2, 3), (4, 5)], np.int32))
    assert best_spans(tokens, bounds, None, max_tokens=1, top_k=3) == [
        (-2000.0, 2, 3),
        (-4000.0, 0, 1),
        (-6000.0, 4, 5),
    ]


def test_no_span_reaches_into_the_next_window():
    text, offsets = "a b c d", np.array([(0, 1), (2, 3), (4, 5), (6, 7)], np.int32)
    starts, ends = np.array([-5.0, 0.0, -6.0, -7.0]), np.array([-5.0, -4.0, 0.0, -7.0])
    bounds = answer_bounds(text, offsets)
    apart = TokenScores(starts, ends, np.array([2, 1, 2, 1]), np.arange(4))
    assert best_spans(apart, bounds, None, max_tokens=4, top_k=1) == [(-4.0, 2, 3)]
    together = TokenScores(starts, ends, np.array([4, 3, 2, 1]), np.arange(4))
    assert best_spans(together, bounds, None, max_tokens=4, top_k=1) == [(0.0, 2, 5)]
