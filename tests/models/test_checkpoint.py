"""Strict loading: what is missing, unknown or misshapen is said, all of it at once."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from rembert_ray.errors import UnusableError
from rembert_ray.models import auto
from rembert_ray.models.config import AutoConfig, RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.inventory import digest_encoder, match, read_inventory
from rembert_ray.models.rembert import RemBertForTokenClassification, RemBertModel
from rembert_ray.models.weight_map import HEADS
from rembert_ray.storage.location import locate

TINY = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "input_embedding_size": 8,
    "intermediate_size": 24,
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    RemBertForTokenClassification(RemBertConfig(**TINY)).save_pretrained(str(tmp_path))
    return tmp_path


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def faults_of(folder, model=RemBertForTokenClassification):
    with pytest.raises(UnusableError) as error:
        model.from_pretrained(str(folder), strict=True)
    return [str(fault) for fault in error.value.faults]


SHARED = {name: size for name, size in TINY.items() if name != "input_embedding_size"}
CONFIGS = {
    "rembert": RemBertConfig(**TINY),
    "rembert decoder": RemBertConfig(**TINY, is_decoder=True, add_cross_attention=True),
    "roberta": RobertaPreLayerNormConfig(**SHARED),
    "roberta untied": RobertaPreLayerNormConfig(**SHARED, tie_word_embeddings=False),
    "roberta decoder": RobertaPreLayerNormConfig(**SHARED, is_decoder=True, add_cross_attention=True),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weight_map_names_every_parameter_with_its_shape(config, head):
    model = auto.model_class(config, head)(config)
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {weight.name: weight.shape for weight in model.weight_map()} == found
    sources = [source for weight in model.weight_map() for source in weight.sources]
    assert len(sources) == len(set(sources))


def test_weight_map_without_pooler():
    model = RemBertModel(RemBertConfig(**TINY), add_pooling_layer=False)
    assert {weight.name for weight in model.weight_map()} == {name for name, _ in model.named_parameters()}


def test_missing_unknown_and_misshapen_tensors_are_reported_together(folder):
    def change(tensors):
        del tensors["classifier.bias"]
        del tensors["rembert.encoder.layer.1.attention.self.key.weight"]
        tensors["rembert.encoder.layer.7.output.dense.bias"] = torch.zeros(16)
        tensors["rembert.embeddings.LayerNorm.weight"] = torch.zeros(9)

    rewrite(folder, change)
    missing, unknown, wrong = faults_of(folder)
    assert "2 missing tensors" in missing
    assert "classifier.bias" in missing
    assert "rembert.encoder.layer.1.attention.self.key.weight" in missing
    assert "1 unknown tensor: rembert.encoder.layer.7.output.dense.bias" in unknown
    assert "rembert.embeddings.LayerNorm.weight is [9], expected [8]" in wrong


def test_base_model_reads_a_head_checkpoint_but_not_a_missing_pooler(folder):
    base = RemBertModel.from_pretrained(str(folder), add_pooling_layer=False)
    tagger = RemBertForTokenClassification.from_pretrained(str(folder))
    ids = torch.arange(9)[None]
    assert torch.equal(base(ids).last_hidden_state, tagger.encoder(ids).last_hidden_state)
    (fault,) = faults_of(folder, RemBertModel)
    assert "rembert.pooler.dense.weight" in fault


def test_stored_position_ids_of_old_checkpoints_are_read_over(folder):
    rewrite(folder, lambda tensors: tensors.update({"rembert.embeddings.position_ids": torch.arange(512)[None]}))
    RemBertForTokenClassification.from_pretrained(str(folder))


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtype_on_load_is_what_was_asked_for(folder, stored, wanted):
    exact = RemBertForTokenClassification.from_pretrained(str(folder)).to(stored)
    exact.save_pretrained(str(folder))
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    model = RemBertForTokenClassification.from_pretrained(str(folder), dtype=wanted)
    assert model.dtype == wanted
    for found, expected in zip(model.parameters(), exact.parameters(), strict=True):
        assert torch.equal(found, expected.to(wanted))


def test_device_on_load(folder):
    model = RemBertForTokenClassification.from_pretrained(str(folder), device=torch.device("cpu"))
    assert model.device == torch.device("cpu")
    assert not model.training


def test_a_head_that_is_there_in_part_keeps_that_part(folder):
    before = load_file(folder / "model.safetensors")
    rewrite(folder, lambda tensors: tensors.pop("classifier.bias"))
    with pytest.warns(UserWarning, match=r"lacks classifier\.bias: initialized at random"):
        model = RemBertForTokenClassification.from_pretrained(str(folder))
    assert torch.equal(model.head.classifier.weight, before["classifier.weight"])
    assert torch.equal(model.head.classifier.bias, torch.zeros(2))


@pytest.mark.parametrize(
    "options",
    [{"num_lables": 3}, {"torch_dtypo": torch.float16}, {"config": CONFIGS["rembert"], "num_labels": 5}],
    ids=["typo", "another typo", "beside a configuration"],
)
def test_options_that_nobody_has_are_refused(folder, options):
    with pytest.raises(TypeError, match=[*options][-1]):
        RemBertForTokenClassification.from_pretrained(str(folder), **options)


def test_a_folder_may_be_a_path(folder, tmp_path_factory):
    model = RemBertForTokenClassification.from_pretrained(folder)
    other = tmp_path_factory.mktemp("other")
    model.save_pretrained(other)
    assert auto.AutoModelForTokenClassification.from_pretrained(other).config == model.config
    assert AutoConfig.from_pretrained(other) == model.config


def test_norms_of_very_old_checkpoints(folder):
    before = load_file(folder / "model.safetensors")

    def change(tensors):
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace(".weight", ".gamma").replace(".bias", ".beta")] = tensors.pop(name)

    rewrite(folder, change)
    model = RemBertForTokenClassification.from_pretrained(str(folder), strict=True)
    assert torch.equal(model.encoder.embeddings.norm.weight, before["rembert.embeddings.LayerNorm.weight"])


def test_weights_that_are_random_are_those_of_hugging_face():
    torch.manual_seed(0)
    loud = {"initializer_range": 0.5}
    for config in (RemBertConfig(**TINY, **loud), RobertaPreLayerNormConfig(**SHARED, **loud)):
        model = auto.AutoModelForMaskedLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            elif "norm" in name:
                assert (parameter == 1).all(), name
            else:
                assert 0.4 < parameter.std() < 0.6, name
        assert not model.encoder.embeddings.word.weight[config.pad_token_id].any()
        is_zero = not model.encoder.embeddings.position.weight[1].any()
        assert is_zero == isinstance(config, RobertaPreLayerNormConfig)


def test_inventory_reads_headers_only_and_agrees_with_the_weight_map(folder):
    model = RemBertForTokenClassification(RemBertConfig(**TINY))
    inventory = read_inventory(locate(str(folder)))
    found = match(inventory, model.weight_map(), "rembert")
    assert found.faults("here") == []
    assert {source for sources in found.sources.values() for source in sources} == set(inventory)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "no such file"),
        ("config.json", b"{", "is not a JSON object"),
        ("config.json", b"[]", "holds a list"),
        ("config.json", b'{"model_type": "bert"}', "model_type is 'bert'"),
        ("config.json", b'{"model_type": "rembert", "hidden_size": "x"}', "hidden_size is 'x'"),
        ("config.json", b'{"model_type": "rembert", "num_attention_heads": 7}', "not a multiple"),
        ("config.json", b'{"model_type": "rembert", "hidden_act": "mish"}', "'mish' is not known"),
        ("model.safetensors", None, "holds neither model.safetensors nor"),
        ("model.safetensors", b"", "not a readable safetensors file"),
        ("model.safetensors", struct.pack("<Q", 1 << 40) + b"{}", "header of"),
        ("model.safetensors", struct.pack("<Q", 2) + b"[]", "not a readable safetensors file"),
    ],
)
def test_unusable_folders_say_what_is_wrong(folder, name, content, said):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert any(said in fault for fault in faults_of(folder))


def file_of(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


def entry(start=0, end=4, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": entry(), "b": entry(0, 8, (2,))}, "'a' and 'b' share bytes"),
        ({"a": entry(-4, 0)}, "the shape or place of 'a' is none"),
        ({"a": entry(shape=(-1, -1))}, "the shape or place of 'a' is none"),
        ({"a": entry(shape=[1] * 9)}, "the shape or place of 'a' is none"),
        ({"a": entry(shape=[True])}, "the shape or place of 'a' is none"),
        ({"a": entry(shape=["1"])}, "the shape or place of 'a' is none"),
        ({"a": entry(shape=(10**20, 10**20))}, "4 bytes for shape"),
        ({"a": entry(60, 68, (2,))}, "the file is cut short"),
        ({"a": entry(dtype=["F32"])}, "the name or type of 'a' is none"),
        ({"x" * 600: entry()}, "the name or type of 'xxx"),
        ({"a": []}, "not a readable safetensors file"),
        ({"a": None}, "not a readable safetensors file"),
        ({"a": {"dtype": "F32"}}, "not a readable safetensors file"),
        ({"a": entry() | {"data_offsets": [0]}}, "not a readable safetensors file"),
        ({f"{number}": entry(0, 0, (0,)) for number in range(100_001)}, "100,001 tensors, the most is 100,000"),
    ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(folder, header, said):
    (folder / "model.safetensors").write_bytes(file_of(header))
    found = faults_of(folder)
    assert any(said in fault for fault in found)
    assert all(len(fault) < 1000 for fault in found)


def test_many_unknown_names_make_no_endless_message(folder):
    header = {f"{'x' * 400}{chr(97 + number % 26)}{number}x": entry(0, 0, (0,)) for number in range(5000)}
    (folder / "model.safetensors").write_bytes(file_of(header))
    assert any(
        "5000 unknown tensors" in fault and "and 4950 more" in fault.replace(",", "") for fault in faults_of(folder)
    )


def test_a_name_in_two_files_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "two.safetensors").write_bytes((folder / "one.safetensors").read_bytes())
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert any("which is in one.safetensors, too" in fault for fault in faults_of(folder))


def test_an_index_of_many_files_is_refused(folder):
    index = {"weight_map": {f"{number}": f"{number}.safetensors" for number in range(1001)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert any("names 1,001 files, the most is 1,000" in fault for fault in faults_of(folder))


def test_the_encoder_of_a_folder_that_lacks_some_of_it_has_no_digest(folder):
    (folder / "model.safetensors").write_bytes(file_of({"a": entry()}))
    with pytest.raises(UnusableError, match="missing tensors"):
        digest_encoder(locate(str(folder)), AutoConfig.from_pretrained(folder))


def test_a_file_that_is_cut_short_is_found_from_its_header(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    assert "cut short" in faults_of(folder)[0]


def test_an_index_that_leaves_the_folder_or_names_absent_files_is_refused(folder):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../model.safetensors", "b": "gone.safetensors"}})
    )
    first, second = faults_of(folder)
    assert "no plain file name" in first
    assert "gone.safetensors, which is not there" in second


def test_unknown_config_keys_survive_a_round_trip(tmp_path):
    config = RemBertConfig.from_dict({"model_type": "rembert", "hidden_size": 36, "my_key": [1, 2], "num_labels": 3})
    config.save_pretrained(str(tmp_path))
    again = RemBertConfig.from_pretrained(str(tmp_path))
    assert again == config
    assert again.extra["my_key"] == [1, 2]
    assert again.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_a_sharded_checkpoint_travels_through_any_fsspec_url(folder):
    model = RemBertForTokenClassification.from_pretrained(str(folder))
    model.save_pretrained("memory://models/tagger", max_shard_bytes=3_000)
    again = RemBertForTokenClassification.from_pretrained("memory://models/tagger")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len({tensor.file for tensor in read_inventory(locate("memory://models/tagger")).values()}) > 2
