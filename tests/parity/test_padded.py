"""Padded batches: `forward` of every class against `transformers`, over random configurations and inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.parity.oracle import (
    TOLERANCE,
    assert_equal,
    assert_equal_outputs,
    each_class,
    each_family,
    few,
    inputs,
    is_meaningful,
    make_pair,
    pairs,
    random_ids,
    random_mask,
)


@each_class
@given(data=st.data())
@few(max_examples=12)
@torch.no_grad()
def test_forward_equals_hugging_face(name, data):
    pair = data.draw(pairs(name))
    given = data.draw(inputs(pair))
    options = {option: True for option in ("output_attentions", "output_hidden_states") if data.draw(st.booleans())}
    if "output_attentions" in options:
        pair.theirs.set_attn_implementation("eager")
    found, expected = pair.ours(**given, **options), pair.theirs(**given, **options)
    assert_equal_outputs(found, expected, rows=is_meaningful(pair, given))


@each_class
@torch.no_grad()
def test_what_the_configuration_asks_for_is_returned(name):
    pair = make_pair(name, output_hidden_states=True)
    assert pair.config.output_hidden_states
    ids = random_ids(pair, 2, 2, 5) if pair.is_multiple_choice else random_ids(pair, 2, 5)
    expected = pair.theirs(ids)
    assert len(expected.hidden_states) == pair.config.num_hidden_layers + 1
    assert_equal_outputs(pair.ours(ids), expected)
    assert "hidden_states" not in pair.ours(ids, output_hidden_states=False)


@each_family
@torch.no_grad()
def test_a_mask_per_query_means_the_same_as_one_per_row_and_more(family):
    # transformers 5.23 documents this mask and fails on it: it takes one per query with an axis for the heads.
    pair = make_pair(f"{family}Model")
    ids, mask = random_ids(pair, 3, 7), random_mask(3, 7, "holes")
    per_row = pair.ours(ids, attention_mask=mask).last_hidden_state
    assert torch.equal(pair.ours(ids, attention_mask=mask[:, None].expand(3, 7, 7)).last_hidden_state, per_row)
    per_query = torch.rand(3, 7, 7) < 0.5
    per_query |= torch.eye(7, dtype=torch.bool)
    bias = torch.zeros(3, 1, 7, 7).masked_fill(~per_query[:, None], torch.finfo(torch.float32).min)
    found = pair.ours(ids, attention_mask=per_query.long()).last_hidden_state
    assert_equal(found, pair.theirs(ids, attention_mask=bias).last_hidden_state, "last_hidden_state")


@each_family
@pytest.mark.parametrize("kept", [0, 1, 4, torch.tensor([0, 3, 3]), torch.tensor([5])])
@torch.no_grad()
def test_logits_to_keep(family, kept):
    pair = make_pair(f"{family}ForCausalLM", is_decoder=True)
    ids = random_ids(pair, 2, 6)
    found, expected = pair.ours(ids, logits_to_keep=kept), pair.theirs(ids, logits_to_keep=kept)
    assert_equal_outputs(found, expected)


@each_family
@torch.no_grad()
def test_without_pooler(family):
    pair = make_pair(f"{family}ForMaskedLM")
    found = type(make_pair(f"{family}Model").ours)(pair.config, add_pooling_layer=False).eval()
    found.encoder.load_state_dict(pair.ours.encoder.state_dict())
    ids = random_ids(pair, 2, 6)
    assert_equal_outputs(found(ids), getattr(pair.theirs, pair.config.base_model_prefix)(ids))


@each_family
@torch.no_grad()
def test_mask_types(family):
    pair = make_pair(f"{family}Model")
    ids, mask = random_ids(pair, 2, 6), random_mask(2, 6, "right")
    expected = pair.theirs(ids, attention_mask=mask).last_hidden_state
    for dtype in (torch.long, torch.int32, torch.bool, torch.float32, torch.uint8):
        assert_equal(pair.ours(ids, attention_mask=mask.to(dtype)).last_hidden_state, expected, str(dtype))


def test_nan_equals_nothing():
    nan = torch.tensor([float("nan")])
    with pytest.raises(AssertionError):
        assert_equal(nan, nan, "nan", TOLERANCE)
