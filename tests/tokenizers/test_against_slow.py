"""RemBertTokenizer gives what the slow tokenizer of transformers 4.x gave.

`tests/data/rembert_slow_4.46.3.json` was recorded by `tests/data/record_rembert_slow.py`, which says how. The one
difference that is meant: special tokens that a model holds as control symbols vanish from the decoded text there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.special_tokens import SpecialToken

DATA = Path(__file__).parent.parent / "data"
RECORDED: list[dict[str, Any]] = json.loads((DATA / "rembert_slow_4.46.3.json").read_text(encoding="utf-8"))


@pytest.fixture(params=RECORDED, ids=lambda r: f"{r['model']}-{'lower' if r['do_lower_case'] else 'cased'}")
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def tokenizer(recorded: dict[str, Any]) -> RemBertTokenizer:
    return RemBertTokenizer(DATA / recorded["model"], do_lower_case=recorded["do_lower_case"])


def has_control_symbols(tokenizer: RemBertTokenizer) -> bool:
    return tokenizer.sep_token_id < tokenizer.vocab_size


def test_texts_and_pieces(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    assert len(tokenizer) == recorded["length"]
    for text, pieces, columns in recorded["texts"]:
        assert tokenizer.tokenize(text) == pieces
        assert dict(tokenizer(text)) == columns


def test_pairs(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    for text, pair, columns in recorded["pairs"]:
        assert dict(tokenizer(text, pair, return_special_tokens_mask=True)) == columns


def test_words(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    for words, columns in recorded["words"]:
        assert dict(tokenizer(words, is_split_into_words=True)) == columns


def test_truncation_of_both_sides_by_every_strategy(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    assert len(recorded["truncated"]) > 20
    for text, pair, side, strategy, max_length, columns in recorded["truncated"]:
        tokenizer.truncation_side = side
        assert dict(tokenizer(text, pair, truncation=strategy, max_length=max_length)) == columns


def test_decoding(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    for ids, text, without_specials, cleaned in recorded["decoded"]:
        if not has_control_symbols(tokenizer):
            assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == without_specials
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == cleaned
    for tokens, text in recorded["strings"]:
        assert tokenizer.convert_tokens_to_string(tokens) == text


def test_the_template_on_ids(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    assert recorded["template"] == [
        tokenizer.build_inputs_with_special_tokens([7, 8], [9]),
        tokenizer.build_inputs_with_special_tokens([7, 8]),
        tokenizer.create_token_type_ids_from_sequences([7, 8], [9]),
        tokenizer.create_token_type_ids_from_sequences([7, 8]),
        tokenizer.get_special_tokens_mask([7, 8], [9]),
        tokenizer.get_special_tokens_mask([7, 8]),
        [tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)],
    ]


def test_added_tokens(tokenizer: RemBertTokenizer, recorded: dict[str, Any]) -> None:
    added = recorded["added"]
    assert added["n_new"] == [
        tokenizer.add_tokens(["newword", "▁the", "other"]),
        tokenizer.add_special_tokens({"additional_special_tokens": ["<x>", "<y>"]}),
        tokenizer.add_tokens([SpecialToken("<lr>", lstrip=True, rstrip=True, is_special=False)]),
        tokenizer.add_special_tokens({"cls_token": "<CLS>"}),
    ]
    assert tokenizer.get_added_vocab() == added["added_vocab"]
    assert tokenizer.all_special_tokens == added["all_special_tokens"]
    assert tokenizer.all_special_ids == added["all_special_ids"]
    assert tokenizer.special_tokens_map == added["special_tokens_map"]
    assert len(tokenizer) == added["length"]
    for text, ids, pieces, decoded, without_specials in added["texts"]:
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.tokenize(text) == pieces
        assert tokenizer.decode(ids, skip_special_tokens=True) == without_specials
        if not has_control_symbols(tokenizer):
            assert tokenizer.decode(ids) == decoded
