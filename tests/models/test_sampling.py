"""From logits to tokens: filters equal to transformers' to the last bit, draws that follow the probabilities."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.sampling import (
    adjust,
    adjust_for_sampling,
    draw,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    row_generators,
    scale_by_temperature,
)

process = pytest.importorskip("transformers.generation.logits_process")


def random_logits(seed, n_rows=3, n_ids=40, *, ties=False):
    logits = torch.randn(n_rows, n_ids, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.round() if ties else logits


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.05, 5), st.integers(1, 50), st.floats(0, 1), st.booleans())
def test_filters_equal_those_of_transformers(seed, temperature, k, p, ties):
    logits = random_logits(seed, ties=ties)
    for ours, theirs in (
        (scale_by_temperature(logits, temperature), process.TemperatureLogitsWarper(temperature)),
        (keep_top_k(logits, k), process.TopKLogitsWarper(k)),
        (keep_top_p(logits, p), process.TopPLogitsWarper(p)),
    ):
        assert torch.equal(ours, theirs(None, logits))


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.1, 4), st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_repetition_penalty_equals_that_of_transformers(seed, penalty, n_padding):
    logits = random_logits(seed)
    ids = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(9) >= torch.tensor(n_padding)[:, None]).long()
    theirs = process.RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=torch.tensor(n_padding))
    assert torch.equal(penalize_repetition(logits, ids, mask, penalty), theirs(ids, logits))


def test_steps_come_in_the_order_of_transformers():
    options = GenerationOptions(
        do_sample=True, temperature=0.7, top_k=9, top_p=0.8, repetition_penalty=1.4, min_new_tokens=3
    )
    logits, stop_ids = random_logits(1), torch.tensor([2, 5])
    ids = torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(1))
    theirs = process.LogitsProcessorList(
        [
            process.RepetitionPenaltyLogitsProcessor(1.4),
            process.MinNewTokensLengthLogitsProcessor(4, 3, [2, 5]),
            process.TemperatureLogitsWarper(0.7),
            process.TopKLogitsWarper(9),
            process.TopPLogitsWarper(0.8),
        ]
    )
    ours = adjust_for_sampling(adjust(logits, ids, torch.ones_like(ids), 2, stop_ids, options), options)
    assert torch.equal(ours, theirs(ids, logits))
    assert torch.isfinite(adjust(logits, ids, torch.ones_like(ids), 3, stop_ids, options)[:, stop_ids]).all()


@pytest.mark.parametrize("has_seeds", [True, False])
def test_draws_follow_the_probabilities(has_seeds):
    """20,000 draws from 6 ids, two of them impossible; Pearson's chi-square with 3 degrees of freedom."""
    probabilities = torch.tensor([0.0, 0.5, 0.3, 0.15, 0.05, 0.0])
    n_draws = 20_000
    torch.manual_seed(3)
    generators = row_generators(3, n_draws) if has_seeds else None
    counts = draw(probabilities.log().expand(n_draws, -1), generators).bincount(minlength=6)
    assert counts[[0, 5]].tolist() == [0, 0]
    expected = probabilities[1:5] * n_draws
    # Exceeded by chance once in 1,000 seeds; this one is fixed.
    assert float(((counts[1:5] - expected) ** 2 / expected).sum()) < 16.27


def test_a_row_draws_independently_from_step_to_step():
    """Successive draws of one generator: all pairs of 3 equally probable ids, chi-square with 8 degrees of freedom."""
    (generator,) = row_generators([5], 1)
    draws = torch.cat([draw(torch.zeros(1, 3), [generator]) for _ in range(9_001)])
    counts = (draws[:-1] * 3 + draws[1:]).bincount(minlength=9)
    assert float(((counts - 1_000) ** 2 / 1_000).sum()) < 26.12


def test_the_only_possible_id_is_drawn_wherever_it_is():
    for only in (0, 3, 6):
        logits = torch.full((50, 7), -torch.inf)
        logits[:, only] = -80.0
        assert draw(logits, row_generators(1, 50)).tolist() == [only] * 50


def test_seeds():
    assert row_generators(None, 3) is None
    first, second = (
        [float(torch.rand((), generator=generator)) for generator in row_generators(4, 5)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 5
    with pytest.raises(ValueError, match="1 seeds for 2 rows"):
        row_generators([1], 2)
    for seed in (-1, 2**64, True, "1"):
        with pytest.raises(ValueError, match="not a whole number"):
            row_generators([seed], 1)
