"""Tokens, ids, roles and added tokens, under the names and with the answers of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.special_tokens import SpecialToken

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def tokenizer() -> RemBertTokenizer:
    return RemBertTokenizer(DATA / "tiny_multilingual_8k.model")


def test_conversion_of_one_and_of_many(tokenizer: RemBertTokenizer) -> None:
    the = tokenizer.convert_tokens_to_ids("▁the")
    assert isinstance(the, int)
    assert tokenizer.convert_ids_to_tokens(the) == "▁the"
    assert tokenizer.convert_ids_to_tokens(np.int64(the)) == "▁the"
    assert tokenizer.convert_tokens_to_ids(["▁the", "[MASK]", "no such piece"]) == [the, 6, tokenizer.unk_token_id]
    assert tokenizer.convert_ids_to_tokens([4, the, 6, 5], skip_special_tokens=True) == ["▁the"]
    with pytest.raises(IndexError):
        tokenizer.convert_ids_to_tokens(99_999)


def test_the_vocabulary_is_a_bijection(tokenizer: RemBertTokenizer) -> None:
    tokenizer.add_tokens(["added"])
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == len(tokenizer) == tokenizer.vocab_size + 1
    assert sorted(vocabulary.values()) == list(range(len(tokenizer)))
    assert tokenizer.convert_ids_to_tokens(vocabulary.values()) == list(vocabulary)
    assert tokenizer.convert_tokens_to_ids(vocabulary) == list(vocabulary.values())
    assert tokenizer.get_added_vocab()["added"] == tokenizer.vocab_size


def test_roles_can_be_set_by_token_and_by_id(tokenizer: RemBertTokenizer) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer(["a", "a b"], padding=True)["input_ids"][0][-2:] == [5, 5]
    tokenizer.pad_token_id = 0
    assert tokenizer.pad_token == "<pad>"
    tokenizer.bos_token = "▁the"
    assert tokenizer.bos_token_id == tokenizer.get_added_vocab()["▁the"]
    with pytest.raises(ValueError, match=r"add_special_tokens\(\{'cls_token': '<new>'\}\)"):
        tokenizer.cls_token = "<new>"


def test_a_new_role_is_in_the_template(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.add_special_tokens({"cls_token": "<new>"}) == 1
    assert tokenizer("")["input_ids"] == [tokenizer.vocab_size, 5]
    assert tokenizer.add_special_tokens({"cls_token": "[CLS]"}) == 0
    assert tokenizer("")["input_ids"] == [4, 5]


def test_a_mask_given_as_text_takes_the_space_on_its_left(tokenizer: RemBertTokenizer) -> None:
    tokenizer.add_special_tokens({"mask_token": "<m>"})
    assert tokenizer.tokenize("a <m>") == ["▁a", "<m>"]
    tokenizer.add_special_tokens({"mask_token": SpecialToken("<n>")})
    assert tokenizer.tokenize("a <n>b") == ["▁a", "<n>", "▁b"]


def test_additional_special_tokens_are_replaced_or_kept(tokenizer: RemBertTokenizer) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<x>"]})
    tokenizer.add_special_tokens({"extra_special_tokens": ["<y>"]}, replace_additional_special_tokens=False)
    assert tokenizer.additional_special_tokens == ["<x>", "<y>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<z>"]})
    assert tokenizer.special_tokens_map["additional_special_tokens"] == ["<z>"]
    assert tokenizer.convert_tokens_to_ids(["<x>", "<y>", "<z>"]) == [tokenizer.vocab_size + i for i in range(3)]
    with pytest.raises(ValueError, match="'pad' is no special token"):
        tokenizer.add_special_tokens({"pad": "x"})


def test_added_words_are_kept_in_decoded_text_and_special_ones_are_not(tokenizer: RemBertTokenizer) -> None:
    assert tokenizer.add_tokens("word") == 1
    assert tokenizer.add_tokens(["word", SpecialToken("<s1>")]) == 1
    assert tokenizer.add_tokens("<s2>", special_tokens=True) == 1
    assert tokenizer.additional_special_tokens == ["<s1>", "<s2>"]
    ids = tokenizer("a word <s1> b <s2>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a word b"


def test_token_objects_of_other_libraries_are_taken(tokenizer: RemBertTokenizer) -> None:
    library = pytest.importorskip("tokenizers")
    tokenizer.add_tokens([library.AddedToken("<t>", lstrip=True, special=True)])
    assert tokenizer.additional_special_tokens == ["<t>"]
    assert tokenizer.tokenize("a <t>b") == ["▁a", "<t>", "▁b"]
    with pytest.raises(ValueError, match="single_word"):
        tokenizer.add_tokens(library.AddedToken("w", single_word=True))
    with pytest.raises(TypeError, match="not int"):
        tokenizer.add_tokens([3])  # type: ignore[list-item]
