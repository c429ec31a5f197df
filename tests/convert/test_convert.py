"""Converted folders hold the names, shapes and numbers that today's transformers and this package expect."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rembert_ray.convert.convert import convert
from rembert_ray.convert.unpack import unpack
from rembert_ray.errors import UnusableError
from rembert_ray.models.auto import model_class
from rembert_ray.models.config import AutoConfig
from rembert_ray.models.inventory import read_inventory
from rembert_ray.models.weight_map import BASE, HEADS, TOKEN_CLASSIFICATION
from rembert_ray.storage.location import read_bytes
from tests.conftest import TOKENIZER
from tests.parity.oracle import TOLERANCE, each_class

transformers = pytest.importorskip("transformers")

TF_DATA = Path(__file__).parents[1] / "data" / "tf"
SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
NARROW = {"RemBert": {"input_embedding_size": 6, "output_embedding_size": 10}, "RobertaPreLayerNorm": {}}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="session")
def tf_folders(tmp_path_factory):
    """What the TensorFlow classes of transformers 4.46.3 saved (tests/data/tf/make.py)."""
    root = tmp_path_factory.mktemp("tf")
    for archive in TF_DATA.glob("*.zip"):
        zipfile.ZipFile(archive).extractall(root)
    return root


def save_old(folder: Path, name: str, *, n_files: int = 1, **config_values) -> dict[str, torch.Tensor]:
    """A random model of today's transformers in a folder with `pytorch_model.bin`; returns what that holds."""
    family = name.partition("For")[0].removesuffix("Model")
    config = getattr(transformers, f"{family}Config")(**SIZES, **NARROW[family], architectures=[name], **config_values)
    model = getattr(transformers, name)(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_()
    tensors = dict(model.state_dict())
    folder.mkdir()
    config.save_pretrained(folder)
    files = [f"pytorch_model-{index}.bin" for index in range(n_files)] if n_files > 1 else ["pytorch_model.bin"]
    weight_map = {key: files[index % n_files] for index, key in enumerate(tensors)}
    for file in files:
        torch.save({key: tensors[key] for key in tensors if weight_map[key] == file}, folder / file)
    if n_files > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def assert_reads_like(folder: Path, name: str, expected: np.lib.npyio.NpzFile) -> None:
    """Today's transformers finds every name in `folder`, none too many, and computes what TensorFlow did; so do we."""
    theirs, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    config = AutoConfig.from_pretrained(str(folder))
    ours = next(found for head in HEADS if (found := model_class(config, head)).__name__ == name)
    inputs = {key: torch.from_numpy(expected[key]).long() for key in INPUTS}
    for model in (theirs.eval(), ours.from_pretrained(str(folder), strict=True)):
        with torch.inference_mode():
            outputs = model(**inputs)
        for key in set(expected.files) - set(INPUTS):
            np.testing.assert_allclose(outputs[key].numpy(), expected[key], atol=TOLERANCE, rtol=0, err_msg=key)


@each_class
def test_every_tensorflow_class_computes_the_same_after_conversion(tf_folders, tmp_path, name):
    # The child process is left out here, for speed: `convert` also takes what it makes.
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_bytes((tf_folders / name / "config.json").read_bytes())
    unpack([tf_folders / name / "tf_model.h5"], source / "model.safetensors")
    done = convert(str(source), str(tmp_path / "new"))
    assert done.model_class == name
    assert_reads_like(tmp_path / "new", name, np.load(tf_folders / name / "expected.npz"))


@pytest.mark.parametrize(
    "folder",
    [
        "RemBertForTokenClassification",
        "RemBertForTokenClassification_Sharded",
        "RemBertForTokenClassification_Safetensors",
        "RobertaPreLayerNormForTokenClassification_Sharded",
    ],
)
def test_every_format_of_tensorflow_is_converted(tf_folders, tmp_path, folder):
    convert(str(tf_folders / folder), str(tmp_path / "new"))
    assert_reads_like(tmp_path / "new", folder.partition("_")[0], np.load(tf_folders / folder / "expected.npz"))


@pytest.mark.parametrize(("name", "n_files"), [("RobertaPreLayerNormForMaskedLM", 1), ("RemBertForCausalLM", 3)])
def test_pytorch_files_become_what_transformers_saves_today(tmp_path, name, n_files):
    tensors = save_old(tmp_path / "old", name, n_files=n_files, is_decoder=name.endswith("CausalLM"))
    done = convert(str(tmp_path / "old"), str(tmp_path / "new"))
    model = getattr(transformers, name).from_pretrained(tmp_path / "new").eval()
    model.save_pretrained(tmp_path / "again")
    found, expected = (
        load_file(tmp_path / "new" / "model.safetensors"),
        load_file(tmp_path / "again" / "model.safetensors"),
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) and torch.equal(found[key], tensors[key]) for key in found)
    assert done.dropped.keys() == tensors.keys() - found.keys()
    assert (done.n_tensors, done.n_bytes) == (len(found), sum(tensor.nbytes for tensor in found.values()))


def save_as_safetensors(folder: Path, tensors: dict[str, torch.Tensor]) -> str:
    """Replace the weights of an old folder by a safetensors file: no child process is needed to read it."""
    (folder / "pytorch_model.bin").unlink()
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / "model.safetensors")
    return str(folder)


def test_names_of_very_old_releases(tmp_path):
    today = save_old(tmp_path / "old", "RemBertForTokenClassification")
    names = {name: name for name in today}
    for name in names:
        if "LayerNorm" in name:
            names[name] = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
    old = {names[name]: tensor for name, tensor in today.items()}
    old["rembert.embeddings.position_ids"] = torch.arange(16)[None]
    done = convert(save_as_safetensors(tmp_path / "old", old), str(tmp_path / "new"))
    found = load_file(tmp_path / "new" / "model.safetensors")
    assert done.dropped == {"rembert.embeddings.position_ids": "counted, not learnt"}
    assert found.keys() == today.keys()
    assert all(torch.equal(found[name], today[name]) for name in today)


def test_a_base_checkpoint_becomes_a_head_and_back(tmp_path):
    base = save_old(tmp_path / "base", "RemBertModel")
    convert(
        save_as_safetensors(tmp_path / "base", base | {"embeddings.position_ids": torch.arange(16)}), f"{tmp_path}/1"
    )
    config = AutoConfig.from_pretrained(f"{tmp_path}/1")
    with pytest.warns(UserWarning, match=r"classifier\.weight"):
        tagger = model_class(config, TOKEN_CLASSIFICATION).from_pretrained(f"{tmp_path}/1")
    tagger.save_pretrained(f"{tmp_path}/2")
    again = model_class(config, BASE).from_pretrained(f"{tmp_path}/2", add_pooling_layer=False)
    for name, tensor in again.encoder.state_dict().items():
        assert torch.equal(tensor, tagger.encoder.state_dict()[name])
    assert torch.equal(again.encoder.embeddings.word.weight, base["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("has_both", [True, False])
def test_untied_bias_gets_both_of_its_names(tmp_path, has_both):
    tensors = save_old(tmp_path / "old", "RobertaPreLayerNormForMaskedLM", tie_word_embeddings=False)
    if not has_both:
        tensors["lm_head.bias"] = torch.randn(20)
        del tensors["lm_head.decoder.bias"]
    tensors["roberta_prelayernorm.embeddings.position_ids"] = torch.arange(16)
    convert(save_as_safetensors(tmp_path / "old", tensors), str(tmp_path / "new"))
    _, info = transformers.RobertaPreLayerNormForMaskedLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(info.values())
    found = load_file(tmp_path / "new" / "model.safetensors")
    assert torch.equal(found["lm_head.decoder.bias"], tensors["lm_head.decoder.bias" if has_both else "lm_head.bias"])


def test_tied_tensors_that_differ_are_refused(tmp_path):
    tensors = save_old(tmp_path / "old", "RobertaPreLayerNormForMaskedLM")
    source = save_as_safetensors(tmp_path / "old", tensors | {"lm_head.decoder.weight": torch.ones(20, 8)})
    with pytest.raises(UnusableError, match=r"lm_head\.decoder\.weight and .*word_embeddings.* differ .*tie_word_emb"):
        convert(source, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_everything_that_does_not_fit_is_said_at_once_and_nothing_is_written(tmp_path):
    tensors = save_old(tmp_path / "old", "RemBertForTokenClassification")
    del tensors["rembert.encoder.layer.0.output.dense.bias"]
    tensors["classifier.weight"] = torch.zeros(5, 8)
    tensors["rembert.adapter/kernel:0"] = torch.zeros(3)
    with pytest.raises(UnusableError) as caught:
        convert(save_as_safetensors(tmp_path / "old", tensors), str(tmp_path / "new"))
    text = "\n".join(caught.value.lines)
    for part in ("layer.0.output.dense.bias", "adapter/kernel:0", "classifier.weight is [5, 8], expected [2, 8]"):
        assert part in text
    assert not (tmp_path / "new").exists()


def test_a_folder_that_needs_no_conversion_or_holds_nothing_is_refused(tmp_path):
    tensors = save_old(tmp_path / "old", "RemBertForTokenClassification")
    source = save_as_safetensors(tmp_path / "old", tensors)
    with pytest.raises(UnusableError, match="nothing to convert"):
        convert(source, str(tmp_path / "new"))
    (tmp_path / "old" / "model.safetensors").unlink()
    with pytest.raises(UnusableError, match=r"none of .*model\.safetensors, pytorch_model\.bin"):
        convert(source, str(tmp_path / "new"))
    with pytest.raises(UnusableError, match=r"config\.json"):
        convert(str(tmp_path / "nowhere"), str(tmp_path / "new"))


@pytest.mark.parametrize("held", ["model.safetensors", "pytorch_model.bin", "tf_model.h5"])
def test_weights_are_never_written_over(tf_folders, tmp_path, held):
    (tmp_path / held).write_bytes(b"precious")
    with pytest.raises(UnusableError, match=f"already holds {held}"):
        convert(str(tf_folders / "RemBertModel"), str(tmp_path))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(held, b"precious")]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"a": "../secret.bin"}}, "no plain file name"),
        ({"weight_map": {"a": "pytorch_model-7.bin"}}, "pytorch_model-7.bin, which is not there"),
        (["a"], "is not a JSON object"),
        ({"weight_map": ["a"]}, "not an index"),
        ({"weight_map": {"a": 5}}, "no plain file name"),
        ({"weight_map": {"a": ["b"]}}, "not an index"),
    ],
)
def test_an_index_names_files_of_its_folder_only(tmp_path, index, reason):
    save_old(tmp_path / "old", "RemBertModel")
    (tmp_path / "old" / "pytorch_model.bin").unlink()
    (tmp_path / "old" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(UnusableError, match=reason):
        convert(str(tmp_path / "old"), str(tmp_path / "new"))


def test_from_one_store_to_another_with_the_tokenizer(tf_folders, s3_folder):
    old, new = s3_folder.child("old"), s3_folder.child("new")
    for file in (tf_folders / "RobertaPreLayerNormModel").iterdir():
        old.filesystem.pipe_file(old.child(file.name).path, file.read_bytes())
    old.filesystem.pipe_file(old.child("sentencepiece.model").path, TOKENIZER.read_bytes())
    done = convert(str(old), str(new))
    assert done.copied_files == ("sentencepiece.model",)
    assert read_bytes(new.child("sentencepiece.model")) == TOKENIZER.read_bytes()
    assert len(read_inventory(new)) == done.n_tensors == 41
    config = (tf_folders / "RobertaPreLayerNormModel" / "config.json").read_text()
    assert json.loads(read_bytes(new.child("config.json"))) == json.loads(config)


def test_safetensors_of_a_store_are_fetched_once_whatever_their_number(tf_folders, s3_folder, tmp_path):
    tensors = load_file(tf_folders / "RemBertForTokenClassification_Safetensors" / "model.safetensors")
    files = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (tmp_path / "config.json").write_bytes((tf_folders / "RemBertForTokenClassification" / "config.json").read_bytes())
    for file in tmp_path.iterdir():
        s3_folder.filesystem.pipe_file(s3_folder.child(file.name).path, file.read_bytes())
    done = convert(str(s3_folder), str(tmp_path / "new"))
    assert (done.model_class, done.n_tensors) == ("RemBertForTokenClassification", 41)


def test_a_remote_file_that_is_damaged_is_named_by_its_url(s3_folder, tf_folders, tmp_path):
    config = (tf_folders / "RemBertModel" / "config.json").read_bytes()
    for name, content in {"config.json": config, "pytorch_model.bin": b"<html>404</html>"}.items():
        s3_folder.filesystem.pipe_file(s3_folder.child(name).path, content)
    with pytest.raises(UnusableError) as caught:
        convert(str(s3_folder), str(tmp_path / "new"))
    assert caught.value.lines[0].startswith(f"{s3_folder}/pytorch_model.bin: is damaged")


def test_the_report_says_what_was_left_out_and_what_is_next(tf_folders, tmp_path):
    done = convert(str(tf_folders / "RemBertForTokenClassification_Safetensors"), str(tmp_path / "new"))
    assert done.lines == [
        f"{tmp_path}/new: RemBertForTokenClassification, 41 tensors, 5,548 bytes",
        f"copied: nothing; no vocabulary in {done.source}: add it",
        f"next: rembert-ray plan MANIFEST --set model={tmp_path}/new",
    ]
