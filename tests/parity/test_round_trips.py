"""Checkpoints in both directions: what we write `transformers` reads whole, and what it writes we do."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rembert_ray.errors import UnusableError
from rembert_ray.models import auto
from rembert_ray.models.config import AutoConfig
from tests.parity.oracle import (
    CLASSES,
    Pair,
    assert_equal_outputs,
    each_class,
    each_family,
    few,
    make_pair,
    our_class,
    pairs,
    random_ids,
    split_name,
    their_model,
    transformers,
)

WITH_HEAD = [name for name in CLASSES if not name.endswith("Model")]
each_head = pytest.mark.parametrize("name", WITH_HEAD)


def read_back(pair: Pair, folder: str | Path) -> torch.nn.Module:
    """Our folder, read by `transformers`, with nothing missing, unexpected or of another shape."""
    model, report = getattr(transformers, pair.name).from_pretrained(folder, output_loading_info=True)
    assert {kind: names for kind, names in report.items() if names} == {}
    return model.eval()


def assert_equal_states(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    # RoBERTa untied has a bias that transformers never reads; ours writes that of the decoder in its place.
    unread = {"lm_head.bias"} if "lm_head.decoder.bias" in expected else set()
    assert [name for name in expected.keys() - unread if not torch.equal(found[name], expected[name])] == []


@each_class
@given(data=st.data())
@few(max_examples=4)
@torch.no_grad()
def test_there_and_back(name, data, tmp_path_factory):
    pair, folder = data.draw(pairs(name)), str(tmp_path_factory.mktemp("model"))
    pair.ours.save_pretrained(folder)
    theirs = read_back(pair, folder)
    assert_equal_states(theirs, pair.theirs)
    assert_equal_states(our_class(name).from_pretrained(folder, strict=True), pair.ours)
    before, after = pair.theirs.config.to_dict(), theirs.config.to_dict()
    assert {key: after.get(key, "absent") for key in before} == {**before, "_name_or_path": folder}


@each_class
@torch.no_grad()
def test_sharded_both_ways(name, tmp_path):
    pair = make_pair(name)
    pair.ours.save_pretrained(str(tmp_path / "ours"), max_shard_bytes=6_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2
    assert_equal_states(read_back(pair, tmp_path / "ours"), pair.theirs)
    pair.theirs.save_pretrained(tmp_path / "theirs", max_shard_size="6KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 2
    assert_equal_states(our_class(name).from_pretrained(str(tmp_path / "theirs"), strict=True), pair.ours)


@each_class
def test_through_a_remote_file_system(name):
    pair = make_pair(name)
    pair.ours.save_pretrained(f"memory://round-trips/{name}", max_shard_bytes=6_000)
    again = our_class(name).from_pretrained(f"memory://round-trips/{name}", strict=True)
    assert_equal_states(again, pair.ours)
    assert again.config.to_dict() == pair.ours.config.to_dict()


@each_head
@torch.no_grad()
def test_a_base_checkpoint_becomes_a_head(name, tmp_path):
    family, _ = split_name(name)
    their_model(f"{family}Model").save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="initialized at random") as said:
        ours = our_class(name).from_pretrained(str(tmp_path))
    _, report = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    new = {key for key in report["missing_keys"] if not key.endswith("position_ids")}
    (message,) = [str(warning.message) for warning in said]
    named = set(message.partition(" lacks ")[2].partition(": ")[0].split(", "))
    # The decoder's bias has two names in RoBERTa's head; the second is not stored.
    assert {key.removeprefix(f"{ours.config.base_model_prefix}.") for key in named} == new - {"lm_head.decoder.bias"}
    ids = torch.randint(0, 61, (2, 5))
    assert torch.equal(ours.encoder(ids)[0], our_class(f"{family}Model").from_pretrained(str(tmp_path)).encoder(ids)[0])
    assert all(parameter.isfinite().all() for parameter in ours.parameters())
    with pytest.raises(UnusableError, match=f"{len(named)} missing tensors?"):
        our_class(name).from_pretrained(str(tmp_path), strict=True)


@each_head
@torch.no_grad()
def test_a_head_checkpoint_becomes_a_base_model(name, tmp_path):
    family, _ = split_name(name)
    pair = make_pair(name)
    pair.theirs.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours = our_class(f"{family}Model").from_pretrained(str(tmp_path))
    theirs, report = getattr(transformers, f"{family}Model").from_pretrained(tmp_path, output_loading_info=True)
    assert bool(said) == bool(report["missing_keys"])
    ids = random_ids(pair, 2, 5)
    assert torch.equal(ours(ids)[0], pair.ours.encoder(ids)[0])
    if not said:
        assert_equal_outputs(ours(ids), theirs.eval()(ids))
    bare = our_class(f"{family}Model").from_pretrained(str(tmp_path), add_pooling_layer=False, strict=True)
    assert "pooler_output" not in bare(ids)
    assert torch.equal(bare(ids)[0], ours(ids)[0])


@pytest.mark.parametrize("wanted", WITH_HEAD)
@torch.no_grad()
def test_one_head_from_the_checkpoint_of_another(wanted, tmp_path):
    family, _ = split_name(wanted)
    other = "ForTokenClassification" if wanted.endswith("ForMaskedLM") else "ForMaskedLM"
    pair = make_pair(family + other)
    pair.theirs.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = our_class(wanted).from_pretrained(str(tmp_path))
    # Both language models have the same tensors.
    assert bool(said) == (not wanted.endswith("ForCausalLM"))
    assert_equal_states(found.encoder, pair.ours.encoder)


@each_family
@torch.no_grad()
def test_another_number_of_labels(family, tmp_path):
    their_model(f"{family}Model").save_pretrained(tmp_path)
    cls = our_class(f"{family}ForSequenceClassification")
    with pytest.warns(UserWarning, match="initialized at random"):
        model = cls.from_pretrained(str(tmp_path), num_labels=5)
    assert model(torch.zeros(2, 3, dtype=torch.long)).logits.shape == (2, 5)
    assert model.config.id2label == {index: f"LABEL_{index}" for index in range(5)}
    model.save_pretrained(str(tmp_path))
    with pytest.raises(UnusableError, match=r"is \[5\], expected \[7\]"):
        cls.from_pretrained(str(tmp_path), num_labels=7)
    names = {0: "no", 1: "perhaps", 2: "yes", 3: "ask", 4: "skip"}
    labelled = cls.from_pretrained(str(tmp_path), id2label=names)
    assert labelled.config.labels == list(names.values())


@each_class
@torch.no_grad()
def test_tensors_that_old_checkpoints_hold_are_read_over(name, tmp_path):
    pair = make_pair(name)
    pair.theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    prefix = "" if name.endswith("Model") else f"{pair.config.base_model_prefix}."
    tensors[f"{prefix}embeddings.position_ids"] = torch.arange(40)[None]
    if name.endswith("LM") and "Roberta" in name:  # what transformers 4.x wrote beside the tied ones
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"].clone()
        tensors["lm_head.decoder.weight"] = tensors[f"{prefix}embeddings.word_embeddings.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal_states(our_class(name).from_pretrained(str(tmp_path), strict=True), pair.ours)


@each_family
@torch.no_grad()
def test_a_configuration_instead_of_the_folders(family, tmp_path):
    pair = make_pair(f"{family}ForCausalLM")
    pair.theirs.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(str(tmp_path))
    config.is_decoder = True
    ours = our_class(pair.name).from_pretrained(str(tmp_path), config=config)
    their_config = transformers.AutoConfig.from_pretrained(tmp_path)
    their_config.is_decoder = True
    theirs = type(pair.theirs).from_pretrained(tmp_path, config=their_config).eval()
    ids = random_ids(pair, 2, 5)
    assert_equal_outputs(ours(ids), theirs(ids))
    assert "past_key_values" in ours(ids)
    assert_equal_states(our_class(pair.name).from_pretrained(str(tmp_path), is_decoder=True), ours)


@each_class
@torch.no_grad()
def test_auto_classes(name, tmp_path):
    _, head = split_name(name)
    pair = make_pair(name)
    pair.theirs.save_pretrained(tmp_path)
    cls = getattr(auto, f"AutoModel{head.removeprefix('Model')}")
    found = cls.from_pretrained(str(tmp_path), strict=True)
    assert type(found) is our_class(name)
    assert_equal_states(found, pair.ours)
    assert type(found.config) is type(AutoConfig.from_pretrained(str(tmp_path)))
    assert type(cls.from_config(found.config)) is our_class(name)


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM"])
@torch.no_grad()
def test_rembert_is_never_tied(head, tmp_path):
    # transformers reads the flag and ties nothing: the vectors in and out have other sizes.
    pair_values = {"tie_word_embeddings": True, "is_decoder": head == "ForCausalLM"}
    for sizes in ({}, {"input_embedding_size": 12, "output_embedding_size": 12}):
        pair = make_pair(f"RemBert{head}", **pair_values, **sizes)
        ids = random_ids(pair, 2, 5)
        assert_equal_outputs(pair.ours(ids), pair.theirs(ids))
