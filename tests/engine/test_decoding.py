"""A shard of prompts gives what each prompt gives alone, whatever joins and leaves, fails or runs out of memory.

Models are tiny, random and in float64, where no two tokens are as good as equal. The oracle is the model's own
`generate`, one prompt at a time, which tests/models/test_generation.py holds against transformers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.engine import continuous_batch
from rembert_ray.engine.decoding import NO_TOKEN, Decoder
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.ragged_cache import RaggedCache
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.rembert import RemBertForCausalLM
from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormForCausalLM
from rembert_ray.ragged import splits

CPU = torch.device("cpu")
FAMILIES = ("rembert", "roberta")
N_IDS, PADDING, STOPS = 40, 1, (2, 7)
LAST = 9


@cache
def make_model(family, dtype=torch.float64):
    torch.manual_seed(4)
    shape = {
        "vocab_size": N_IDS,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "initializer_range": 0.7,
        "is_decoder": True,
        "pad_token_id": PADDING,
        "eos_token_id": list(STOPS),
    }
    if family == "rembert":
        model = RemBertForCausalLM(RemBertConfig(**shape, input_embedding_size=8, output_embedding_size=12))
    else:
        model = RobertaPreLayerNormForCausalLM(RobertaPreLayerNormConfig(**shape))
    with torch.no_grad():
        model.head.decoder.bias.normal_()
        model.head.decoder.bias[list(STOPS)] += 1.5
    return model.to(dtype).eval()


def table_of(prompts):
    lengths = np.array([len(prompt) for prompt in prompts])
    none = np.zeros(len(prompts), np.int64)
    return WindowTable.from_ranges(np.concatenate(prompts), splits(lengths), none, none)


def run(model, prompts, *, cache_tokens=None, seed=0, **options):
    """New ids of each prompt, and the result they come from."""
    decoder = Decoder(model, GenerationOptions(**{"max_new_tokens": LAST} | options), seed, CPU, cache_tokens)
    result = decoder.run(table_of(prompts))
    ids, n_new = result.values["ids"], result.values["n_new"]
    assert all((row[n:] == NO_TOKEN).all() for row, n in zip(ids, n_new, strict=True))
    return [row[:n].tolist() for row, n in zip(ids, n_new, strict=True)], result


def alone(model, prompt, **options):
    row = torch.tensor([prompt])
    return model.generate(row, torch.ones_like(row), **{"max_new_tokens": LAST} | options)[0, len(prompt) :].tolist()


def random_prompts(n, seed=0):
    """Of 1 to 20 ids, padding among them: it is text, and RoBERTa's positions do not count it."""
    random = np.random.default_rng(seed)
    return [random.integers(0, N_IDS, random.integers(1, 21)).tolist() for _ in range(n)]


prompts = st.lists(st.lists(st.integers(0, N_IDS - 1), min_size=1, max_size=20), min_size=1, max_size=12)
options = st.fixed_dictionaries(
    {"min_new_tokens": st.integers(0, 4), "repetition_penalty": st.sampled_from([1.0, 1.3])}
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30)
@given(prompts=prompts, options=options, cache_tokens=st.integers(1, 200), pass_tokens=st.integers(1, 60))
def test_each_row_is_what_it_is_alone_whatever_joins_and_leaves(family, prompts, options, cache_tokens, pass_tokens):
    model = make_model(family)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous_batch, "choose_batch_tokens", lambda encoder, device: pass_tokens)
        patch.setattr(continuous_batch, "LOGIT_ROWS", 3)
        found, result = run(model, prompts, cache_tokens=cache_tokens, **options)
    assert found == [alone(model, prompt, **options) for prompt in prompts]
    assert not result.failures
    assert result.values["stopped"].tolist() == [new[-1] in STOPS for new in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_end_at_many_steps_and_places_are_taken_again(family):
    """What the test above goes through, seen once."""
    prompts = random_prompts(40)
    found, result = run(make_model(family), prompts, cache_tokens=4 * (20 + LAST))
    assert {len(new) for new in found} >= {1, 2, 3, LAST}
    n_steps_of_single_rows = sum(len(new) for new in found)
    assert LAST < result.facts.n_batches < n_steps_of_single_rows / 3


def test_a_row_that_waits_joins_as_soon_as_there_is_room():
    """Equal lengths in room for five: batches that nobody joins would each run to their longest row's end."""
    prompts = np.random.default_rng(5).integers(0, N_IDS, (30, 4)).tolist()
    found, result = run(make_model("rembert"), prompts, cache_tokens=5 * (4 + LAST))
    n_new = np.array([len(new) for new in found])
    assert result.facts.n_batches < n_new.reshape(6, 5).max(1).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_depends_on_the_seed_and_the_prompt_alone(family):
    model, prompts = make_model(family), random_prompts(30, seed=1)
    how = {"do_sample": True, "top_k": 12, "temperature": 1.5}
    whole, _ = run(model, prompts, seed=3, **how)
    order = np.random.default_rng(0).permutation(len(prompts))
    other, _ = run(model, [prompts[place] for place in order], seed=3, cache_tokens=60, **how)
    assert other == [whole[place] for place in order]
    assert run(model, prompts, seed=4, **how)[0] != whole


def test_equal_prompts_run_once():
    prompts = random_prompts(6)
    once, _ = run(make_model("rembert"), prompts)
    found, result = run(make_model("rembert"), prompts * 3)
    assert found == once * 3
    assert (result.facts.n_windows, result.facts.n_windows_computed) == (18, 6)
    assert result.facts.n_tokens_computed == sum(len(prompt) for prompt in prompts)


def test_prepacked_equals_plain():
    prompts = random_prompts(30, seed=2)
    model = make_model("rembert", torch.float32)
    plain, _ = run(model, prompts)
    make_model.cache_clear()
    assert prepack_linears(model)
    assert run(model, prompts)[0] == plain


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_prompt_that_cannot_be_read_fails_alone(num_beams):
    prompts = random_prompts(9)
    prompts[4] = [3, N_IDS + 5, 3]
    model = make_model("rembert")
    found, result = run(model, prompts, num_beams=num_beams)
    assert list(result.failures) == [4]
    assert "IndexError" in result.failures[4]
    for place, new in enumerate(found):
        expected = [] if place == 4 else alone(model, prompts[place], num_beams=num_beams)
        assert new[: len(expected)] == expected


def test_out_of_memory_halves_the_cache_and_goes_on(monkeypatch):
    tried = []

    class SmallDevice(RaggedCache):
        def __init__(self, config, n_places, like):
            tried.append(n_places)
            if n_places > 70:
                raise torch.OutOfMemoryError("no more than 70 places")
            super().__init__(config, n_places, like)

    prompts = random_prompts(20)
    expected, _ = run(make_model("rembert"), prompts)
    monkeypatch.setattr(continuous_batch, "RaggedCache", SmallDevice)
    assert run(make_model("rembert"), prompts, cache_tokens=250)[0] == expected
    assert tried == [250, 125, 62]


def test_out_of_memory_for_a_single_row_is_raised(monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(continuous_batch, "RaggedCache", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        run(make_model("rembert"), random_prompts(3))
