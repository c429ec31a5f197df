"""AutoTokenizer picks the class that a folder names, and says what it knows when there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from rembert_ray.errors import UnusableError
from rembert_ray.storage.location import Location
from rembert_ray.tokenizers.auto import AutoTokenizer, check_tokenizer
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast
from rembert_ray.tokenizers.roberta import RobertaTokenizer

MODEL = Path(__file__).parent.parent / "data" / "tiny_multilingual_8k.model"
REMBERT = {"model_type": "rembert"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Vocabulary files by name, to fill folders with."""
    path = tmp_path_factory.mktemp("files")
    RemBertTokenizerFast(MODEL).save_vocabulary(path)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(alphabet), "<mask>"]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    return {
        "sentencepiece.model": MODEL.read_bytes(),
        "tokenizer.json": (path / "tokenizer.json").read_bytes(),
        "vocab.json": json.dumps(vocabulary).encode(),
        "merges.txt": b"#version: 0.2\n",
    }


def fill(folder: Path, files: dict[str, bytes], names: str, **configs: dict[str, Any]) -> Path:
    for name in names.split():
        (folder / name).write_bytes(files[name])
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("names", "tokenizer_class", "use_fast", "chosen"),
    [
        ("sentencepiece.model tokenizer.json", None, None, RemBertTokenizer),
        ("sentencepiece.model tokenizer.json", "RemBertTokenizer", None, RemBertTokenizer),
        ("sentencepiece.model tokenizer.json", "RemBertTokenizerFast", None, RemBertTokenizerFast),
        ("sentencepiece.model tokenizer.json", "RemBertTokenizer", True, RemBertTokenizerFast),
        ("sentencepiece.model tokenizer.json", "RemBertTokenizerFast", False, RemBertTokenizer),
        ("sentencepiece.model", "RemBertTokenizer", True, RemBertTokenizerFast),
        ("tokenizer.json", "RemBertTokenizer", None, RemBertTokenizerFast),
        ("tokenizer.json", "TokenizersBackend", None, RemBertTokenizerFast),
        ("tokenizer.json", None, None, RemBertTokenizerFast),
    ],
)
def test_rembert_has_two(names, tokenizer_class, use_fast, chosen, files, tmp_path):
    config = {} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}
    folder = fill(tmp_path, files, names, config=REMBERT, tokenizer_config=config)
    tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=use_fast, model_max_length=77)
    assert type(tokenizer) is chosen
    assert tokenizer.model_max_length == 77
    assert tokenizer("a")["input_ids"] == RemBertTokenizer(MODEL)("a")["input_ids"]


@pytest.mark.parametrize("use_fast", [None, True, False])
@pytest.mark.parametrize("configs", [{"config": {"model_type": "roberta-prelayernorm"}}, {}])
def test_roberta_has_one(use_fast, configs, files, tmp_path):
    named = {"tokenizer_config": {"tokenizer_class": "RobertaTokenizerFast"}}
    folder = fill(tmp_path, files, "vocab.json merges.txt", **(configs or named))
    assert type(AutoTokenizer.from_pretrained(folder, use_fast=use_fast)) is RobertaTokenizer


@pytest.mark.parametrize("kind", [RemBertTokenizer, RemBertTokenizerFast])
def test_what_a_class_saves_comes_back_as_that_class(kind, tmp_path):
    kind(MODEL).save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is kind


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"tokenizer_config": {"tokenizer_class": "RemBertTokeniser"}}, r"did you mean 'RemBertTokenizer'\?"),
        (
            {"tokenizer_config": {"tokenizer_class": "T5Tokenizer"}, "config": REMBERT},
            "'T5Tokenizer' is not known",
        ),
        ({"config": {"model_type": "xlnet"}}, "'xlnet' is not known here .known: rembert, roberta-prelayernorm."),
        ({"config": {}}, "neither tokenizer_config.json nor config.json says which tokenizer this is"),
        ({"config": REMBERT}, "neither tokenizer.json nor sentencepiece.model"),
    ],
)
def test_a_folder_that_names_none_is_refused(configs, message, files, tmp_path):
    with pytest.raises(UnusableError, match=message):
        AutoTokenizer.from_pretrained(fill(tmp_path, files, "", **configs))


def test_the_slow_one_does_not_exist_without_its_model(files, tmp_path):
    folder = fill(tmp_path, files, "tokenizer.json", config=REMBERT)
    with pytest.raises(UnusableError, match="there is no SentencePiece model here"):
        AutoTokenizer.from_pretrained(folder, use_fast=False)


def test_sentencepiece_needs_no_tokenizers_library(files, tmp_path):
    folder = fill(tmp_path, files, "sentencepiece.model", config=REMBERT)
    code = (
        "import sys, rembert_ray; from rembert_ray.tokenizers.auto import AutoTokenizer; "
        f"AutoTokenizer.from_pretrained({str(folder)!r})('a'); "
        "sys.exit(repr({'tokenizers', 'transformers', 'torch', 'ray'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.strip() in ("", "0"), done.stderr


def broken_folder(files: dict[str, bytes], folder: Path, how: str) -> None:
    fill(folder, files, "sentencepiece.model", config=REMBERT)
    if how == "a piece that is no UTF-8":
        (folder / "sentencepiece.model").write_bytes(files["sentencepiece.model"].replace(b"the", b"\x80he"))
        return
    if how == "a gap between added tokens":
        fill(folder, files, "tokenizer.json", tokenizer_config={"tokenizer_class": "RemBertTokenizerFast"})
        added = {"9000": {"content": "<new>"}, "0": {"content": "<pad>"}}
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "RemBertTokenizerFast", "added_tokens_decoder": added})
        )
        return
    fill(folder, files, "", tokenizer_config={"tokenizer_class": "RemBertTokenizerFast"})
    whole = json.loads(files["tokenizer.json"])
    whole["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (folder / "tokenizer.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a piece that is no UTF-8", "UnicodeDecodeError"),
        ("a gap between added tokens", "ValueError: added token '<new>' has id 9000"),
        ("a panic of the library", "PanicException"),
    ],
)
def test_files_that_contradict_each_other_are_found_before_the_job(how, said, files, tmp_path):
    broken_folder(files, tmp_path, how)
    with pytest.raises(UnusableError, match=f"its tokenizer cannot be used: {said}"):
        check_tokenizer(Location(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer_config", {"tokenizer_class": ["RemBertTokenizer"]}, "tokenizer_class"),
        ("tokenizer_config", {"added_tokens_decoder": ["a"]}, "added_tokens_decoder is no object"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {"content": "a"}}}, "its id is not a number"),
        ("tokenizer_config", {"added_tokens_decoder": {"-1": {"content": "a"}}}, "its id is not a number"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": "a"}}, "is not an object with `content`"),
        ("tokenizer_config", {"additional_special_tokens": 5}, "the added tokens are no list"),
        ("tokenizer_config", {"additional_special_tokens": ["a"] * 10_001}, "the added tokens are no list of at most"),
        ("tokenizer_config", {"cls_token": "x" * 1001}, "cls_token has 1,001 characters"),
        ("tokenizer_config", {"padding_side": "up"}, "padding_side is 'up', not left or right"),
        ("tokenizer_config", {"do_lower_case": "yes"}, "do_lower_case is 'yes', not true or false"),
        ("tokenizer_config", {"model_max_length": "many"}, "model_max_length is 'many', not a number"),
        ("special_tokens_map", {"mask_token": {"content": 1}}, "mask_token is neither a string nor an object"),
        ("config", {"model_type": {"a": 1}}, "model_type"),
    ],
)
def test_odd_values_are_named(name, content, said, files, tmp_path):
    fill(tmp_path, files, "sentencepiece.model", **{"config": REMBERT, name: content})
    with pytest.raises(UnusableError) as error:
        check_tokenizer(Location(str(tmp_path)))
    assert said in str(error.value)
