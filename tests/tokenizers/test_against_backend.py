"""Columns, words, texts and characters are found as the `tokenizers` library of transformers 5.x finds them.

The oracle is transformers' RemBertTokenizer over the same pieces, on random calls over real text. Its ids differ from
SentencePiece's on purpose for some texts (see `rembert_fast`): those are left out. Offsets differ too: it leaves the
white space before a word in the word, and gives a lone '▁' the next character.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.truncation import share_evenly

ROOT = Path(__file__).parent.parent.parent


class EvenRemBertTokenizer(RemBertTokenizer):
    """With the library's rule for 'longest_first', so that the rest can be compared."""

    longest_first = staticmethod(share_evenly)


ours = EvenRemBertTokenizer(ROOT / "tests/data/tiny_multilingual_8k.model")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers = pytest.importorskip("transformers")
    processors = pytest.importorskip("tokenizers.processors")
    folder = tmp_path_factory.mktemp("saved")
    RemBertTokenizer(ROOT / "tests/data/tiny_multilingual_8k.model").save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # transformers 5.23 adds no special tokens to a tokenizer that it loads from a bare sentencepiece.model.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ours.cls_token_id), ("[SEP]", ours.sep_token_id)],
    )
    return tokenizer


@pytest.fixture(scope="module")
def texts(theirs: Any) -> list[str]:
    table = pq.read_table(ROOT / "demo/corpus/treebank_sentences.parquet")["text"].to_pylist()
    same = [
        text for text in table
        if ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
    ]  # fmt: skip
    assert len(same) > 0.9 * len(table)
    return same


def random_call(seed: int, texts: list[str]) -> tuple[Any, Any, dict[str, Any], str]:
    """Texts, second texts, options and the truncation side of one call that can be done."""
    dice = random.Random(seed)
    first, second = dice.sample(texts, 3), dice.sample(texts, 3)
    has_pair, is_split = dice.random() < 0.6, dice.random() < 0.4
    strategy: Any = dice.choice([True, False, "only_first", "only_second"] if has_pair else [True, False])
    fixed = {"only_first": second, "only_second": first}.get(strategy, [])
    n_fixed = max((len(ours(text.split(), is_split_into_words=True).input_ids) for text in fixed), default=20)
    has_overflow = dice.random() < 0.6
    options = {
        "truncation": strategy,
        "max_length": n_fixed + dice.randrange(8, 20),
        "stride": dice.choice([0, 1, 5]) if has_overflow and strategy is True else 0,
        "return_overflowing_tokens": has_overflow,
        "padding": dice.choice([False, "longest", "max_length"]),
        "padding_side": dice.choice(["left", "right"]),
        "is_split_into_words": is_split,
        "add_special_tokens": dice.random() < 0.8,
    }
    if is_split:
        first, second = ([text.split() for text in side] for side in (first, second))  # type: ignore[misc]
    return first, second if has_pair else None, options, dice.choice(["left", "right"])


@pytest.mark.parametrize("seed", range(60))
def test_a_random_call(seed: int, theirs: Any, texts: list[str]) -> None:
    first, second, options, side = random_call(seed, texts)
    ours.truncation_side = theirs.truncation_side = side
    everything = {"return_special_tokens_mask": True, "return_token_type_ids": True, "return_length": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result, expected = (tokenizer(first, second, **options, **everything) for tokenizer in (ours, theirs))
    assert dict(result) == dict(expected)
    for row in range(len(result["input_ids"])):
        assert result.word_ids(row) == expected.word_ids(row)
        assert result.sequence_ids(row) == expected.sequence_ids(row)
        n_tokens = len(result["input_ids"][row])
        for token in range(0, n_tokens, 3):
            assert result.token_to_word(row, token) == expected.token_to_word(row, token)
            assert result.token_to_sequence(row, token) == expected.token_to_sequence(row, token)
        for word in range(0, 12, 3):
            for text in (0, 1) if second else (0,):
                assert result.word_to_tokens(row, word, text) == expected.word_to_tokens(row, word, text)


def test_characters_and_tokens(theirs: Any, texts: list[str]) -> None:
    latin = [text for text in texts if text.isascii()]
    assert len(latin) > 20
    for text in latin:
        result, expected = ours(text), theirs(text)
        for char in range(0, len(text), 2):
            if not text[char].isspace():
                assert result.char_to_token(char) == expected.char_to_token(char)
                assert result.char_to_word(char) == expected.char_to_word(char)
