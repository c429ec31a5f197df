"""Names of any release to today's, and the head that they are of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.convert.names import Origin, class_name, find_head, new_inventory, translate
from rembert_ray.errors import UnusableError
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.inventory import Tensor
from rembert_ray.models.weight_map import BASE, CAUSAL_LM, HEADS, MASKED_LM, MULTIPLE_CHOICE, model_weights

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONFIGS = [
    RemBertConfig(**SIZES, input_embedding_size=6, output_embedding_size=10, num_labels=3),
    RobertaPreLayerNormConfig(**SIZES, num_labels=3),
    RobertaPreLayerNormConfig(**SIZES, num_labels=3, tie_word_embeddings=False),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=["rembert", "tied", "untied"])


def inventory_of(config, head, **changed) -> dict[str, Tensor]:
    """What a checkpoint holds, as today's releases write it."""
    shapes = {name: weight.source_shape for weight in model_weights(config, head) for name in weight.sources}
    return {name: Tensor("f", 0, "F32", shape) for name, shape in (shapes | changed).items()}


def head_of(inventory, config, *architectures: str) -> str:
    today = new_inventory(inventory, translate(inventory, config).origins)
    return find_head(today, replace(config, num_labels=None, architectures=list(architectures)), "/old")


@pytest.mark.parametrize(
    ("stored", "name", "is_transposed"),
    [
        ("rembert/tf_rem_bert_model/rembert/pooler/dense/kernel:0", "rembert.pooler.dense.weight", True),
        ("rembert/embeddings/word_embeddings/weight:0", "rembert.embeddings.word_embeddings.weight", False),
        (
            "a/b/rembert/embeddings/position_embeddings/embeddings:0",
            "rembert.embeddings.position_embeddings.weight",
            False,
        ),
        (
            "rembert/x/rembert/encoder/layer_._11/output/LayerNorm/gamma:0",
            "rembert.encoder.layer.11.output.LayerNorm.weight",
            False,
        ),
        ("mlm___cls/x/mlm___cls/predictions/LayerNorm/beta:0", "cls.predictions.LayerNorm.bias", False),
        ("mlm___cls/x/mlm___cls/predictions/decoder/weight:0", "cls.predictions.decoder.weight", False),
        ("classifier/rembert/classifier/kernel:0", "classifier.weight", True),
        ("embeddings.LayerNorm.gamma", "rembert.embeddings.LayerNorm.weight", False),
        ("cls.predictions.LayerNorm.beta", "cls.predictions.LayerNorm.bias", False),
        ("elsewhere/kernel:0", "elsewhere/kernel:0", False),
        ("rembert/encoder/iterations:0", "rembert/encoder/iterations:0", False),
        ("module.rembert.pooler.dense.bias", "module.rembert.pooler.dense.bias", False),
    ],
)
def test_names(stored, name, is_transposed):
    assert translate([stored], CONFIGS[0]).origins == {name: Origin(stored, is_transposed)}


@each_config
@pytest.mark.parametrize("head", HEADS)
def test_todays_names_stay_and_tell_the_head(config, head):
    inventory = inventory_of(config, head)
    translation = translate(inventory, config)
    prefix = f"{config.base_model_prefix}." if head == BASE else ""
    assert {name.removeprefix(prefix) for name in translation.origins} >= inventory.keys()
    assert not translation.copies
    assert not translation.dropped
    assert head_of(inventory, config, class_name(config, head)) == head
    assert head_of(inventory, config, "TF" + class_name(config, head)) == head
    # The weights of a causal and of a masked model are the same.
    assert head_of(inventory, config) == (MASKED_LM if head == CAUSAL_LM else head)


def test_a_decoder_is_causal():
    config = replace(CONFIGS[0], num_labels=None, is_decoder=True)
    assert head_of(inventory_of(config, MASKED_LM), config) == CAUSAL_LM


@each_config
def test_an_encoder_under_the_configuration_of_a_head_is_an_encoder(config):
    assert head_of(inventory_of(config, BASE), config, class_name(config, MASKED_LM)) == BASE


@each_config
def test_a_head_that_is_there_in_part_or_misshapen_is_refused(config):
    name = class_name(config, MULTIPLE_CHOICE)
    inventory = inventory_of(config, MULTIPLE_CHOICE)
    in_part = {name: tensor for name, tensor in inventory.items() if name != "classifier.bias"}
    with pytest.raises(UnusableError, match=r"1 missing tensor: classifier\.bias"):
        head_of(in_part, config, name)
    misshapen = inventory | {"classifier.weight": Tensor("f", 0, "F32", (7, 8))}
    with pytest.raises(UnusableError, match=r"classifier\.weight is \[7, 8\]"):
        head_of(misshapen, config, name)
    with pytest.raises(UnusableError, match=r"classifier\.weight.*another number of labels"):
        head_of(misshapen, config)


def test_second_names_of_tied_tensors_are_copies_whatever_the_order():
    tied = CONFIGS[1]
    inventory = inventory_of(tied, MASKED_LM)
    second = {
        "lm_head.decoder.weight": "roberta_prelayernorm.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    for names in ([*inventory, *second], [*second, *inventory]):
        translation = translate(names, tied)
        assert translation.copies == second
        assert all(origin.stored == name for name, origin in translation.origins.items())


def test_a_tied_tensor_under_its_second_name_only_gets_its_first():
    assert translate(["lm_head.decoder.bias"], CONFIGS[1]).origins == {"lm_head.bias": Origin("lm_head.decoder.bias")}


@given(st.lists(st.text("abcrembert/_.:0layer", max_size=30), unique=True))
def test_every_stored_name_has_exactly_one_fate(names):
    found = translate(names, CONFIGS[0])
    fates = [*(origin.stored for origin in found.origins.values()), *found.copies, *found.dropped]
    assert sorted(fates) == sorted(names)
