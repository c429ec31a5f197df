"""Construction, folders and decoding that all tokenizers share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert_ray.tokenizers.base import clean_up_tokenization
from rembert_ray.tokenizers.limits import UNLIMITED
from rembert_ray.tokenizers.rembert import RemBertTokenizer

DATA = Path(__file__).parent.parent / "data"
MODEL = DATA / "tiny_multilingual_8k.model"
tiny = RemBertTokenizer(MODEL)


def test_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match="no option do_lowercase, pad"):
        RemBertTokenizer(MODEL, do_lowercase=True, pad="x")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'left' or 'right'"):
        RemBertTokenizer(MODEL, padding_side="both")  # type: ignore[arg-type]


def test_no_limit_is_a_number_as_in_transformers() -> None:
    assert tiny.model_max_length == UNLIMITED > 10**20
    assert tiny.is_fast


def test_everything_that_is_set_is_saved_and_loaded(tmp_path: Path) -> None:
    original = RemBertTokenizer(
        MODEL, do_lower_case=True, keep_accents=False, padding_side="left", truncation_side="left",
        model_max_length=64, clean_up_tokenization_spaces=True,
    )  # fmt: skip
    original.add_tokens(["word"])
    original.add_special_tokens({"cls_token": "<c>", "additional_special_tokens": ["<x>"]})
    written = original.save_pretrained(tmp_path)
    assert sorted(written) == sorted(str(path) for path in tmp_path.iterdir())
    loaded = RemBertTokenizer.from_pretrained(tmp_path)
    for name in (
        "do_lower_case", "keep_accents", "remove_space", "padding_side", "truncation_side", "model_max_length",
        "clean_up_tokenization_spaces", "special_tokens_map", "all_special_ids", "added_tokens_decoder",
    ):  # fmt: skip
        assert getattr(loaded, name) == getattr(original, name), name
    assert loaded.encode("A word <x> [MASK]") == original.encode("A word <x> [MASK]")


def test_no_limit_is_not_saved(tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    assert "model_max_length" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert RemBertTokenizer.from_pretrained(tmp_path).model_max_length == UNLIMITED


def test_a_folder_of_the_slow_tokenizer_of_4_x_is_read(tmp_path: Path) -> None:
    # What transformers 4.46.3 writes for RemBertTokenizer("test_sentencepiece.model"): its default pad and unk.
    contents = {"1000": "[CLS]", "1001": "[SEP]", "1002": "[UNK]", "1003": "[PAD]", "1004": "[MASK]"}
    flags = {"normalized": False, "rstrip": False, "single_word": False, "special": True}
    config: dict[str, Any] = {
        "added_tokens_decoder": {
            token_id: {"content": content, "lstrip": content == "[MASK]", **flags}
            for token_id, content in contents.items()
        },
        **{f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")},
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "RemBertTokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "sentencepiece.model").write_bytes((DATA / "test_sentencepiece.model").read_bytes())
    tokenizer = RemBertTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id) == (1002, 1003, 1004)
    assert tokenizer.all_special_tokens == list(contents.values())
    assert len(tokenizer) == 1005


def test_the_vocabulary_alone(tmp_path: Path) -> None:
    (path,) = tiny.save_vocabulary(tmp_path / "new", filename_prefix="my")
    assert path == f"{tmp_path}/new/my-sentencepiece.model"
    assert Path(path).read_bytes() == MODEL.read_bytes()


def test_the_template_on_ids() -> None:
    assert tiny.build_inputs_with_special_tokens([9]) == [4, 9, 5]
    assert tiny.build_inputs_with_special_tokens([9], []) == [4, 9, 5, 5]
    assert tiny.create_token_type_ids_from_sequences([9], [9, 9]) == [0, 0, 0, 1, 1, 1]
    assert tiny.get_special_tokens_mask([9], [9]) == [1, 0, 1, 0, 1]
    assert tiny.get_special_tokens_mask([4, 9, 6, 5, 0], already_has_special_tokens=True) == [1, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="give it alone"):
        tiny.get_special_tokens_mask([4], [5], already_has_special_tokens=True)


def test_decoding_shows_or_skips_special_tokens() -> None:
    ids = tiny.encode("Paris is [MASK] .")
    assert tiny.decode(ids) == "[CLS] Paris is[MASK] .[SEP]"
    assert tiny.decode(ids, skip_special_tokens=True) == "Paris is ."
    assert tiny.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == "Paris is."
    assert tiny.batch_decode([ids, [], ids[1:2]], skip_special_tokens=True) == ["Paris is .", "", "Paris"]
    with pytest.raises(IndexError):
        tiny.decode([99_999])


@pytest.mark.parametrize("kind", ["int", "tuple", "numpy", "torch"])
def test_decoding_takes_any_form_of_ids(kind: str) -> None:
    ids = tiny.encode("a b", add_special_tokens=False)
    if kind == "int":
        assert tiny.decode(ids[0]) == tiny.decode(np.int64(ids[0])) == "a"
    elif kind == "tuple":
        assert tiny.decode(tuple(ids)) == "a b"
    elif kind == "numpy":
        assert tiny.batch_decode(np.array([ids, ids])) == ["a b"] * 2
    else:
        torch = pytest.importorskip("torch")
        assert tiny.batch_decode(torch.tensor([ids, ids])) == ["a b"] * 2


def test_english_spacing() -> None:
    assert clean_up_tokenization("it 's , do n't ! you 've . ' x") == "it's, don't! you've.'x"


def test_it_shows_itself_briefly() -> None:
    assert repr(tiny).startswith("RemBertTokenizer(8007 tokens, {'bos_token': '[CLS]'")
