"""The cache of a decoder: token by token and in chunks equals one pass, ours and that of `transformers`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.models.cache import KeyValueCache
from tests.parity.oracle import (
    Pair,
    assert_equal,
    assert_equal_outputs,
    each_family,
    few,
    make_pair,
    pairs,
    random_ids,
    random_mask,
)

DECODERS = [family + head for family in ("RemBert", "RobertaPreLayerNorm") for head in ("Model", "ForCausalLM")]
each_decoder = pytest.mark.parametrize("name", DECODERS)
Options = dict[str, torch.Tensor]


def run_in_chunks(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, sizes: list[int], **options: object):
    """Outputs of one pass after the other, each with the cache of the one before."""
    outputs, past, cache = [], 0, None
    for chunk in ids.split(sizes, dim=1):
        seen = past + chunk.shape[1]
        output = model(chunk, attention_mask=mask[:, :seen], past_key_values=cache, use_cache=True, **options)
        cache, past = output.past_key_values, seen
        outputs.append(output)
    return outputs


def draw_memory(data: st.DataObject, pair: Pair, batch: int) -> Options:
    """An encoder's hidden states, for a decoder that looks at one."""
    if not pair.config.add_cross_attention:
        return {}
    memory: Options = {"encoder_hidden_states": torch.randn(batch, 5, pair.config.hidden_size)}
    if data.draw(st.booleans()):
        memory["encoder_attention_mask"] = random_mask(batch, 5, "holes")
    return memory


@each_decoder
@given(data=st.data())
@few(max_examples=12)
@torch.no_grad()
def test_chunks_equal_one_pass_and_hugging_face(name, data):
    pair = data.draw(pairs(name, is_decoder=True))
    sizes = data.draw(st.one_of(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.just([1] * 6)))
    batch, length = data.draw(st.integers(1, 3)), sum(sizes)
    ids = random_ids(pair, batch, length)
    mask = random_mask(batch, length, data.draw(st.sampled_from(["right", "holes"])))
    memory = draw_memory(data, pair, batch)
    found = run_in_chunks(pair.ours, ids, mask, sizes, **memory)
    for ours, theirs in zip(found, run_in_chunks(pair.theirs, ids, mask, sizes, **memory), strict=True):
        assert_equal_outputs(ours, theirs)
    # RoBERTa counts all cached tokens, padding too, and a whole row without it: only then are both the same.
    if "RemBert" in name or not (ids == pair.config.pad_token_id).any():
        whole = pair.ours(ids, attention_mask=mask, use_cache=False, **memory)[0]
        assert_equal(torch.cat([output[0] for output in found], dim=1), whole, "chunks and whole")


@each_decoder
@pytest.mark.parametrize("has_cross_attention", [False, True])
@torch.no_grad()
def test_token_by_token_with_attentions_and_hidden_states(name, has_cross_attention):
    pair = make_pair(name, is_decoder=True, add_cross_attention=has_cross_attention)
    pair.theirs.set_attn_implementation("eager")
    ids, mask = random_ids(pair, 2, 5), torch.ones(2, 5, dtype=torch.long)
    options = {"output_attentions": True, "output_hidden_states": True}
    if has_cross_attention:
        options["encoder_hidden_states"] = torch.randn(2, 3, 16)
    theirs = run_in_chunks(pair.theirs, ids, mask, [1] * 5, **options)
    for found, expected in zip(run_in_chunks(pair.ours, ids, mask, [1] * 5, **options), theirs, strict=True):
        assert_equal_outputs(found, expected)


@each_family
@torch.no_grad()
def test_left_padded_prompts_with_positions_of_their_own(family):
    pair = make_pair(f"{family}ForCausalLM", is_decoder=True)
    ids = torch.randint(6, 61, (3, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6, [0, 1, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    found, expected = (model(ids, attention_mask=mask, position_ids=positions) for model in (pair.ours, pair.theirs))
    assert_equal(found.logits, expected.logits, "prompt", rows=mask.bool())
    mask, next_ids = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1), torch.randint(6, 61, (3, 1))
    given = {"attention_mask": mask, "position_ids": positions[:, -1:] + 1}
    after = [
        model(next_ids, past_key_values=output.past_key_values, **given)
        for output, model in ((found, pair.ours), (expected, pair.theirs))
    ]
    assert_equal_outputs(*after)


@each_family
@torch.no_grad()
def test_word_vectors_with_a_cache(family):
    pair = make_pair(f"{family}Model", is_decoder=True)
    vectors = torch.randn(2, 7, pair.config.embedding_size)
    first = pair.ours(inputs_embeds=vectors[:, :4])
    second = pair.ours(inputs_embeds=vectors[:, 4:], past_key_values=first.past_key_values)
    whole = pair.theirs(inputs_embeds=vectors).last_hidden_state
    assert_equal(torch.cat([first[0], second[0]], dim=1), whole, "chunks and whole")


@each_family
@torch.no_grad()
def test_when_there_is_a_cache(family):
    for is_decoder, in_config, asked in [(d, c, a) for d in (0, 1) for c in (0, 1) for a in (None, False, True)]:
        pair = make_pair(f"{family}Model", is_decoder=bool(is_decoder), use_cache=bool(in_config))
        ids = random_ids(pair, 1, 3)
        found, expected = (model(ids, use_cache=asked) for model in (pair.ours, pair.theirs))
        assert ("past_key_values" in found) == ("past_key_values" in expected)


@each_family
@torch.no_grad()
def test_selected_rows_go_on_as_if_they_had_been_alone(family):
    pair = make_pair(f"{family}ForCausalLM", is_decoder=True, add_cross_attention=True)
    ids, memory = torch.randint(6, 61, (3, 5)), torch.randn(3, 4, 16)
    cache = pair.ours(ids, encoder_hidden_states=memory).past_key_values
    rows = torch.tensor([2, 0, 0, 2])
    cache.select_rows(rows)
    next_ids = torch.randint(6, 61, (4, 1))
    found = pair.ours(next_ids, past_key_values=cache, encoder_hidden_states=memory[rows]).logits
    whole = pair.theirs(torch.cat([ids[rows], next_ids], dim=1), encoder_hidden_states=memory[rows]).logits[:, -1:]
    assert_equal(found, whole, "next token")


def test_buffers_grow_by_doubling_and_keep_what_they_hold():
    cache, steps = KeyValueCache(), torch.randn(2, 1, 2, 21, 3)
    for step in range(21):
        keys, values = cache.update(0, steps[0, :, :, step : step + 1], steps[1, :, :, step : step + 1])
        assert cache.get_seq_length() == step + 1
        assert torch.equal(keys, steps[0, :, :, : step + 1])
        assert torch.equal(values, steps[1, :, :, : step + 1])
