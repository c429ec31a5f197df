"""Options of `generate`: defaults of transformers, and every fault of a call in one message."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.generation_options import GenerationOptions


def test_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig._get_default_generation_params()
    ours = asdict(GenerationOptions())
    assert {name: value for name, value in ours.items() if name in theirs} == {
        name: value for name, value in theirs.items() if name in ours
    }
    # There "20 tokens" is said as a maximal length, which then counts from the end of the prompt.
    assert ours["max_new_tokens"] == theirs["max_length"]
    assert not set(ours) - set(vars(transformers.GenerationConfig()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, not a whole number of at least 1"),
        ({"max_new_tokens": True}, "max_new_tokens is True"),
        ({"min_new_tokens": 30}, "min_new_tokens 30 is more than max_new_tokens 20"),
        ({"do_sample": 1}, "do_sample is 1, not True or False"),
        ({"do_sample": True, "temperature": 0}, "temperature is 0, not a number above 0"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature is nan"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5, not a number from 0 to 1"),
        ({"do_sample": True, "top_k": None}, "top_k is None, not a whole number of at least 0"),
        ({"top_p": 0.9, "temperature": 0.5}, "temperature, top_p without sampling"),
        ({"length_penalty": 2.0}, "length_penalty without beam search"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping is 'always'"),
        ({"num_beams": 2, "do_sample": True}, "choose sampling or beam search"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3 is more than num_beams 2"),
        ({"num_return_sequences": 3}, "all of them would be the same"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id is .* not an id or a list of ids"),
        ({"eos_token_id": "12"}, "eos_token_id is '12'"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationOptions(**options)


def test_all_faults_are_said_at_once():
    with pytest.raises(ValueError, match=r"max_new_tokens is 0.*; num_beams is -1"):
        GenerationOptions(max_new_tokens=0, num_beams=-1)
    with pytest.raises(ValueError, match=r"no option 'max_length' .*; no option 'topk' .*did you mean 'top_k'"):
        GenerationOptions.from_keywords({"max_length": 3, "topk": 4})


def test_stop_and_padding_ids_come_from_the_configuration():
    config = RemBertConfig(pad_token_id=0, eos_token_id=[313, 5])
    assert GenerationOptions().stop_ids(config) == (313, 5)
    assert GenerationOptions(eos_token_id=7).stop_ids(config) == (7,)
    assert GenerationOptions(eos_token_id=[]).stop_ids(config) == ()
    assert GenerationOptions().padding_id(config) == 0
    assert GenerationOptions(pad_token_id=4).padding_id(config) == 4
    assert GenerationOptions().padding_id(RemBertConfig(pad_token_id=None)) == 313
    assert GenerationOptions(eos_token_id=[]).padding_id(RemBertConfig(pad_token_id=None)) is None


def test_options_can_be_a_key():
    assert len({GenerationOptions(eos_token_id=[1, 2]), GenerationOptions(eos_token_id=(1, 2))}) == 1
