"""What `forward` returns behaves as `ModelOutput` of `transformers`: a dataclass, a mapping and a tuple in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import pytest
import torch

from rembert_ray.models import outputs
from tests.parity.oracle import (
    Pair,
    assert_equal,
    each_class,
    each_family,
    make_pair,
    random_ids,
    split_name,
    transformers,
)

OUTPUTS = [name for name in vars(outputs) if name.endswith("Output") or "OutputWith" in name]
PUBLIC = [name for name in OUTPUTS if name not in ("ModelOutput", "EncoderOutput")]
ALL = {"output_hidden_states": True, "output_attentions": True}


def given_for(pair: Pair) -> dict[str, torch.Tensor]:
    """Ids, and labels where the class has a loss."""
    if pair.is_multiple_choice:
        return {"input_ids": random_ids(pair, 2, 2, 5), "labels": torch.tensor([0, 1])}
    given = {"input_ids": random_ids(pair, 2, 5)}
    match split_name(pair.name)[1]:
        case "Model":
            return given
        case "ForQuestionAnswering":
            return given | {"start_positions": torch.tensor([0, 1]), "end_positions": torch.tensor([2, 3])}
        case "ForSequenceClassification":
            return given | {"labels": torch.tensor([0, 1])}
        case _:
            return given | {"labels": torch.randint(0, 3, (2, 5))}


def flat(value) -> list[torch.Tensor]:
    """Tensors in order; caches and Nones left out."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in flat(part)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("name", PUBLIC)
def test_fields_are_those_of_hugging_face_in_their_order(name):
    theirs = getattr(transformers.modeling_outputs, name)
    assert [f.name for f in fields(getattr(outputs, name))] == [f.name for f in fields(theirs)]


@each_class
@torch.no_grad()
def test_class_and_behaviour(name):
    pair = make_pair(name)
    given = given_for(pair)
    found, expected = pair.ours(**given), pair.theirs(**given)
    assert type(found).__name__ == type(expected).__name__
    assert isinstance(found, Mapping)
    assert list(found) == list(found.keys()) == list(expected.keys())
    assert len(found) == len(expected) == len(found.to_tuple())
    first = next(iter(expected))
    assert found[0] is found[first] is getattr(found, first)
    assert first in found
    assert "attentions" not in found
    assert found.attentions is None
    assert found.get("attentions", "nothing") == "nothing"
    assert all(ours is theirs for ours, theirs in zip(found[:2], found.to_tuple()[:2], strict=True))
    assert found[-1] is found.to_tuple()[-1]
    assert {**found}.keys() == found.keys()
    with pytest.raises(KeyError):
        found["attentions"]
    with pytest.raises(IndexError):
        found[9]


@each_class
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}, ALL], ids=["plain", "hidden", "all"])
@torch.no_grad()
def test_tuples_have_the_order_of_hugging_face(name, options):
    pair = make_pair(name)
    pair.theirs.set_attn_implementation("eager")
    given = given_for(pair) | options
    found, expected = (model(**given, return_dict=False) for model in (pair.ours, pair.theirs))
    assert type(found) is tuple
    assert_equal(tuple(flat(found)), tuple(flat(expected)), "tuple")
    pair.ours.config.return_dict = False
    assert_equal(tuple(flat(pair.ours(**given))), tuple(flat(expected)), "tuple by configuration")
    assert isinstance(pair.ours(**given, return_dict=True), outputs.ModelOutput)


@each_family
@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
@torch.no_grad()
def test_tuples_of_a_decoder_have_the_order_of_hugging_face(family, head):
    pair = make_pair(family + head, is_decoder=True, add_cross_attention=True)
    pair.theirs.set_attn_implementation("eager")
    given = {"input_ids": random_ids(pair, 2, 5), "encoder_hidden_states": torch.randn(2, 3, 16)} | ALL
    found, expected = (model(**given, return_dict=False) for model in (pair.ours, pair.theirs))
    assert [kind(value) for value in found] == [kind(value) for value in expected]
    assert_equal(tuple(flat(found)), tuple(flat(expected)), "tuple")


@each_family
@pytest.mark.parametrize("asked", [{}, {"use_cache": None}, {"use_cache": True}, {"use_cache": False}], ids=str)
@torch.no_grad()
def test_a_decoder_with_labels_returns_what_hugging_face_does(family, asked):
    pair = make_pair(f"{family}ForCausalLM", is_decoder=True)
    ids = random_ids(pair, 2, 5)
    found, expected = (model(ids, labels=ids, **asked) for model in (pair.ours, pair.theirs))
    assert list(found) == list(expected)


def kind(value) -> str:
    return type(value).__name__ if isinstance(value, tuple | torch.Tensor) else "cache"
