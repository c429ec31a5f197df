"""Configurations against `transformers`: every documented default, and what each reads of the other's file."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.models.config import AutoConfig
from tests.parity.oracle import each_family, few, our_class, their_config, transformers

# Ours alone: what a class made from the file is written under, and what we do not know.
NOT_SHARED = {"architectures", "extra"}


def both(family: str):
    """Our configuration class and theirs."""
    return our_class(f"{family}Model").config_class, getattr(transformers, f"{family}Config")


@each_family
def test_every_default(family):
    ours, theirs = (cls() for cls in both(family))
    names = {f.name for f in fields(ours)} - NOT_SHARED
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
    documented = set(vars(type(theirs))["__annotations__"]) - {"model_type"}
    assert len(documented) > 15
    assert documented <= names
    assert ours.model_type == theirs.model_type


@each_family
def test_a_file_of_defaults_reads_as_the_defaults(family, tmp_path):
    ours, theirs = both(family)
    theirs().save_pretrained(tmp_path)
    found = ours.from_pretrained(str(tmp_path))
    names = {f.name for f in fields(found)} - NOT_SHARED
    assert {name: getattr(found, name) for name in names} == {name: getattr(ours(), name) for name in names}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": theirs.model_type}))
    assert ours.from_pretrained(str(tmp_path)) == ours()


@each_family
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "vocab_size": st.integers(6, 9),
            "num_labels": st.integers(1, 5),
            "hidden_act": st.sampled_from(["relu", "gelu_new"]),
            "hidden_dropout_prob": st.floats(0, 1),
            "is_decoder": st.booleans(),
            "pad_token_id": st.integers(0, 5),
            "bos_token_id": st.none() | st.integers(0, 5),
            "eos_token_id": st.none() | st.integers(0, 5) | st.lists(st.integers(0, 5), min_size=1, max_size=2),
            "problem_type": st.sampled_from([None, "regression", "multi_label_classification"]),
            "output_attentions": st.booleans(),
            "my_own_key": st.none() | st.lists(st.text(max_size=3), max_size=2),
        },
    )
)
@few(max_examples=40)
def test_there_and_back(family, values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    theirs = both(family)[1](**values)
    theirs.save_pretrained(folder)
    found = AutoConfig.from_pretrained(str(folder))
    found.save_pretrained(str(folder))
    assert AutoConfig.from_pretrained(str(folder)) == found
    assert type(found).from_dict(found.to_dict()) == found
    again = transformers.AutoConfig.from_pretrained(folder).to_dict()
    expected = theirs.to_dict() | {"_name_or_path": str(folder), "architectures": []}
    assert {key: again.get(key, "absent") for key in expected} == expected


@each_family
def test_labels(family):
    ours, theirs = both(family)
    for values in ({"num_labels": 4}, {"id2label": {0: "a", 1: "b", 2: "c"}}, {"id2label": {"0": "a"}}):
        found, expected = ours(**values), theirs(**values)
        assert found.id2label == expected.id2label
        assert found.num_labels == expected.num_labels
    found.num_labels = expected.num_labels = 3
    assert found.id2label == expected.id2label
    assert found.label2id == expected.label2id


@pytest.mark.parametrize("name", ["RemBertModel", "RobertaPreLayerNormModel"])
def test_sizes_of_the_tests_are_read(name):
    theirs = their_config(name)
    ours = our_class(name).config_class.from_dict(theirs.to_dict())
    assert ours.hidden_size == theirs.hidden_size == 16
