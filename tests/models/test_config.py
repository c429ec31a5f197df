"""Configurations: what cannot be built is said, all of it at once; what is not known is kept."""

from __future__ import annotations

import json

import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.models.config import CONFIGS, AutoConfig, RemBertConfig, RobertaPreLayerNormConfig

each_config = pytest.mark.parametrize("cls", CONFIGS.values())


@each_config
def test_defaults_can_be_built(cls):
    assert cls().faults("here") == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": 7, "num_attention_heads": 2}, "hidden_size 7 is not a multiple of num_attention_heads 2"),
        ({"num_attention_heads": 0}, "is not a multiple of num_attention_heads 0"),
        ({"hidden_size": -8}, "hidden_size is -8, not a whole number"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"vocab_size": 2.5}, "vocab_size is 2.5"),
        ({"intermediate_size": "12"}, "intermediate_size is '12'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not known"),
        ({"add_cross_attention": True}, "add_cross_attention without is_decoder"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"pad_token_id": "0"}, "pad_token_id is '0'"),
        ({"pad_token_id": 1.5}, "pad_token_id is 1.5"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5'"),
        ({"initializer_range": -1.0}, "initializer_range is -1.0"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"attention_probs_dropout_prob": "x"}, "attention_probs_dropout_prob is 'x'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not a whole number from 0 to 1000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000, not"),
        ({"hidden_size": 2**21, "num_attention_heads": 2}, "hidden_size is 2097152, not"),
        ({"max_position_embeddings": 10**60}, "max_position_embeddings is 1000"),
        ({"layer_norm_eps": float("inf")}, "layer_norm_eps is inf"),
        ({"eos_token_id": "2"}, "eos_token_id is '2', not an id"),
        ({"eos_token_id": [1, -1]}, "eos_token_id is [1, -1], not an id"),
        ({"use_cache": "no"}, "use_cache is 'no', not true or false"),
        ({"is_decoder": 1}, "is_decoder is 1, not true or false"),
        ({"architectures": [1]}, "architectures is [1], not a list of names"),
        ({"label2id": {"a": "b"}}, "label2id is {'a': 'b'}, not a mapping of names to ids"),
        ({"id2label": {"0": "x" * 10**6}}, "a name of 1,000,000 characters"),
        ({"hidden_act": "x" * 10**6}, "hidden_act 'xxx"),
    ],
)
@each_config
def test_faults(cls, values, said):
    found = [str(fault) for fault in cls(**values).faults("here")]
    assert any(said in fault for fault in found)
    assert all(len(fault) < 300 for fault in found)


def test_all_faults_at_once():
    config = RobertaPreLayerNormConfig(hidden_act="mish", pad_token_id=None, add_cross_attention=True, hidden_size=7)
    assert len(config.faults("here")) == 4
    assert len(RemBertConfig(vocab_size=-1, hidden_size="x").faults("here")) == 2


def test_rembert_needs_no_padding_id():
    config = RemBertConfig(pad_token_id=None)
    assert config.faults("here") == []
    assert config.max_tokens == 512


@each_config
def test_num_labels_is_the_size_of_id2label(cls):
    assert cls().num_labels == 2
    config = cls(num_labels=3)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    named = cls(id2label={"0": "no", "1": "yes"})
    assert named.id2label == {0: "no", 1: "yes"}
    assert named.label2id == {"no": 0, "yes": 1}
    named.num_labels = 2
    assert named.labels == ["no", "yes"]
    named.num_labels = 1
    assert named.labels == ["LABEL_0"]


@each_config
def test_overrides_win_over_the_file(cls, tmp_path):
    cls(id2label={0: "no", 1: "yes"}, hidden_dropout_prob=0.4).save_pretrained(str(tmp_path))
    assert cls.from_pretrained(str(tmp_path)).labels == ["no", "yes"]
    assert cls.from_pretrained(str(tmp_path), num_labels=2).labels == ["no", "yes"]
    changed = cls.from_pretrained(str(tmp_path), num_labels=3, hidden_dropout_prob=0.0, is_decoder=True)
    assert changed.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert changed.hidden_dropout_prob == 0.0
    assert changed.is_decoder
    named = cls.from_pretrained(str(tmp_path), id2label={0: "a", 1: "b", 2: "c"})
    assert named.label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "bert"}', "model_type is 'bert'"),
        ("{}", "model_type is None"),
        ('{"model_type": ["rembert"]}', "model_type is ['rembert']"),
        ('{"model_type": "rembert", "id2label": [1, 2]}', "cannot be read as a RemBertConfig"),
        ('{"model_type": "rembert", "id2label": {"x": "y"}}', "cannot be read as a RemBertConfig"),
        ('{"model_type": "rembert", "problem_type": "ranking"}', "problem_type is 'ranking'"),
        ('{"model_type": "rembert", "num_labels": 1000000000}', "num_labels is 1000000000, not a whole number"),
        ('{"model_type": "rembert", "num_labels": -1}', "num_labels is -1, not a whole number"),
        ('{"model_type": "rembert", "num_labels": 2.5}', "num_labels is 2.5"),
        ('{"model_type": "rembert", "id2label": {"1": "a", "01": "b"}}', "id2label has two names for one id"),
        ('{"model_type": "rembert", "id2label": {"' + "9" * 5000 + '": "a"}}', "cannot be read as a RemBertConfig"),
        ('{"model_type": "rembert", "vocab_size": 5, "vocab_size": 6}', "'vocab_size' is written twice"),
        ('{"model_type": "rembert", "layer_norm_eps": NaN}', "NaN is no finite number"),
        ('{"model_type": "rembert", "x": ' + "[" * 10**5 + "}", "nested more than"),
        ('{"model_type": "' + "x" * 10**6 + '"}', "model_type is 'xxx"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UnusableError) as error:
        AutoConfig.from_pretrained(str(tmp_path))
    assert said in str(error.value)


@each_config
def test_unknown_keys_and_nulls_survive(cls, tmp_path):
    stored = {"model_type": cls.model_type, "my_key": {"a": [1, None]}, "nothing": None, "transformers_version": "4.9"}
    stored |= {"bos_token_id": None, "hidden_act": None}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = AutoConfig.from_pretrained(str(tmp_path))
    assert config.bos_token_id is None
    assert config.hidden_act == "gelu"
    config.save_pretrained(str(tmp_path))
    again = json.loads((tmp_path / "config.json").read_text())
    assert {key: again[key] for key in stored if key != "hidden_act"} == {
        key: value for key, value in stored.items() if key != "hidden_act"
    }
    assert AutoConfig.from_pretrained(str(tmp_path)) == config


def test_rembert_takes_its_own_sizes():
    config = RemBertConfig(input_embedding_size=3, output_embedding_size=5)
    assert (config.embedding_size, config.output_size) == (3, 5)
    other = RobertaPreLayerNormConfig(hidden_size=24)
    assert (other.embedding_size, other.output_size) == (24, 24)
