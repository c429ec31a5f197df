"""Wrong arguments are refused where `transformers` refuses them, in words that say what to do."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import (
    each_class,
    each_family,
    make_pair,
    our_class,
    random_ids,
    their_config,
    transformers,
)


def configs(name: str, **values):
    """Both models' classes with their configurations."""
    theirs = their_config(name, **values)
    ours = our_class(name)
    return (ours, ours.config_class.from_dict(theirs.to_dict())), (getattr(transformers, name), theirs)


@each_class
def test_both_and_neither_of_ids_and_vectors(name):
    pair = make_pair(name)
    shape = (1, 2, 4) if pair.is_multiple_choice else (2, 4)
    vectors = torch.randn(*shape, pair.config.embedding_size)
    for model in (pair.ours, pair.theirs):
        with pytest.raises(ValueError, match="input_ids"):
            model(input_ids=random_ids(pair, *shape), inputs_embeds=vectors)
    if not pair.is_multiple_choice:  # transformers fails on None there, with an AttributeError
        for model in (pair.ours, pair.theirs):
            with pytest.raises(ValueError, match="input_ids"):
                model()


def test_multiple_choice_without_inputs_says_what_is_missing():
    for family in ("RemBert", "RobertaPreLayerNorm"):
        with pytest.raises(ValueError, match="input_ids"):
            make_pair(f"{family}ForMultipleChoice").ours()


@each_class
def test_cross_attention_needs_a_decoder(name):
    for cls, config in configs(name, add_cross_attention=True):
        with pytest.raises(ValueError, match="decoder"):
            cls(config)


@pytest.mark.parametrize("head", ["Model", "ForCausalLM", "ForMaskedLM"])
@each_family
def test_hidden_states_of_an_encoder_need_cross_attention(family, head):
    pair = make_pair(family + head, is_decoder=True)
    for model in (pair.ours, pair.theirs):
        with pytest.raises(ValueError, match="add_cross_attention=True"):
            model(random_ids(pair, 1, 3), encoder_hidden_states=torch.randn(1, 2, 16))


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
@each_family
@torch.no_grad()
def test_an_encoder_reads_over_hidden_states_of_another(family, head):
    pair = make_pair(family + head)
    ids = random_ids(pair, 1, 3)
    for model in (pair.ours, pair.theirs):
        assert torch.equal(model(ids, encoder_hidden_states=torch.randn(1, 2, 16))[0], model(ids)[0])


@each_class
@pytest.mark.parametrize("n_heads", [3, 5])
def test_heads_must_divide_the_hidden_size(name, n_heads):
    for cls, config in configs(name, num_attention_heads=n_heads):
        with pytest.raises(ValueError, match="is not a multiple of"):
            cls(config)


@each_family
def test_masks_of_another_shape(family):
    pair = make_pair(f"{family}Model")
    ids = random_ids(pair, 2, 4)
    for n_dims in (1, 4, 5):
        with pytest.raises(ValueError, match=f"attention_mask has {n_dims} dimensions"):
            pair.ours(ids, attention_mask=torch.ones([2] * (n_dims - 1) + [4]))
    with pytest.raises(RuntimeError):
        pair.ours(ids, attention_mask=torch.ones(2, 5))


@each_class
def test_arguments_that_a_class_does_not_have(name):
    with pytest.raises(TypeError, match="labelz"):
        make_pair(name).ours(torch.zeros(1, 1, 2, dtype=torch.long), labelz=None)


@each_family
def test_an_activation_that_is_not_known(family):
    for cls, config in configs(f"{family}Model", hidden_act="mystery"):
        with pytest.raises((ValueError, KeyError), match="mystery"):
            cls(config)


def test_question_answering_needs_two_labels():
    for family in ("RemBert", "RobertaPreLayerNorm"):
        name = f"{family}ForQuestionAnswering"
        for cls, config in configs(name, num_labels=3):
            with pytest.raises(ValueError, match="values to unpack"):
                cls(config)(torch.zeros(1, 3, dtype=torch.long))
