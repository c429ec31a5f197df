"""Places are given to one row at a time and all come back; what a row reads does not depend on where it lies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.ragged_cache import DecodingLayout, RaggedCache, Span
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.layout import PackedLayout

N_PLACES, N_HEADS, HIDDEN = 40, 2, 8
CPU = torch.device("cpu")
CONFIG = RemBertConfig(hidden_size=HIDDEN, num_attention_heads=N_HEADS, num_hidden_layers=1)


def make_cache() -> RaggedCache:
    return RaggedCache(CONFIG, N_PLACES, torch.zeros(1, dtype=torch.float64))


@given(st.lists(st.tuples(st.integers(1, 15), st.integers(0, 30)), max_size=60))
def test_places_belong_to_one_row_at_a_time_and_all_come_back(turns):
    cache, taken = make_cache(), []
    for n_places, leaver in turns:
        first = cache.take(n_places)
        occupied = {place for start, n in taken for place in range(start, start + n)}
        if first is None:
            free = [place in occupied for place in range(N_PLACES)]
            longest = max(len(run) for run in "".join("x" if used else " " for used in free).split("x"))
            assert longest < n_places
        else:
            assert not occupied.intersection(range(first, first + n_places))
            assert first + n_places <= N_PLACES
            taken.append((first, n_places))
        if taken and leaver % 2:
            cache.give_back(*taken.pop(leaver % len(taken)))
    for row in taken:
        cache.give_back(*row)
    assert cache.take(N_PLACES) == 0


@given(st.integers(0, 3), st.integers(0, 10**6))
def test_steps_beside_prompts_equal_one_packed_pass(place, seed):
    """Three rows are read whole but for their last token; then these tokens beside a new prompt."""
    torch.manual_seed(seed)
    lengths = [5, 3, 9, 4]
    rows = [torch.randn(length, 3 * HIDDEN, dtype=torch.float64) for length in lengths]
    whole = PackedLayout.from_lengths(lengths, CPU, is_causal=True)
    expected = whole.attend(torch.cat(rows), N_HEADS, 0.0, 0).split(lengths)
    cache, starts = make_cache(), [0, 10, 20, 30]
    starts.append(starts.pop(place))
    spans = [Span(first, length) for first, length in zip(starts, lengths, strict=True)]
    running = [Span(span.first, span.n_tokens - 1) for span in spans[:3]]
    layout = DecodingLayout.of(cache, [], running, CPU)
    layout.attend(torch.cat([row[:-1] for row in rows[:3]]), N_HEADS, 0.0, 0)
    layout = DecodingLayout.of(cache, spans[:3], spans[3:], CPU)
    found = layout.attend(torch.cat([row[-1:] for row in rows[:3]] + [rows[3]]), N_HEADS, 0.0, 0)
    torch.testing.assert_close(found[:3], torch.stack([row[-1] for row in expected[:3]]))
    torch.testing.assert_close(found[3:], expected[3])


def test_rows_come_in_the_order_of_their_places():
    with pytest.raises(ValueError, match="order of their places"):
        DecodingLayout.of(make_cache(), [Span(9, 4), Span(0, 5)], [], CPU)


def test_positions_go_on_after_what_counted_before():
    cache = make_cache()
    layout = DecodingLayout.of(cache, [Span(0, 5, n_counted=4), Span(9, 4, n_counted=1)], [Span(20, 3)], CPU)
    assert layout.count(torch.tensor([True, False, True, False, True])).tolist() == [5, 1, 1, 1, 2]
