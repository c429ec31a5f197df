"""What every tokenizer on the `tokenizers` library does: files, flat arrays, bad texts, added tokens."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.errors import UnusableError
from rembert_ray.storage.location import locate
from rembert_ray.tokenizers.backend import BackendTokenizer, read_tokenizer
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast
from rembert_ray.tokenizers.roberta import RobertaTokenizer
from rembert_ray.tokenizers.special_tokens import SpecialToken

MODEL = Path(__file__).parent.parent / "data" / "tiny_multilingual_8k.model"
ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
VOCABULARY = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *ALPHABET, "Ġa", "ab", "<mask>"])}


def byte_level() -> tokenizers.Tokenizer:
    """Bytes and two merges."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(VOCABULARY, [("Ġ", "a"), ("a", "b")]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> RobertaTokenizer:
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    byte_level().save(str(file))
    return RobertaTokenizer(tokenizer_file=file)


fast = RemBertTokenizerFast(MODEL)


@pytest.fixture(params=["rembert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, roberta: RobertaTokenizer) -> BackendTokenizer:
    """One of each kind, which the test may change."""
    return pickle.loads(pickle.dumps(fast if request.param == "rembert" else roberta))


@given(st.lists(st.text(), max_size=4))
def test_flat_arrays_hold_what_the_library_says(roberta: RobertaTokenizer, texts: list[str]) -> None:
    for tokenizer in (fast, roberta):
        theirs = tokenizer.backend_tokenizer.encode_batch(texts)
        ours = tokenizer.encode_batch(texts, with_offsets=True)
        assert [ours.row(i).ids.tolist() for i in range(len(texts))] == [row.ids for row in theirs]
        assert ours.offsets is not None
        assert [tuple(pair) for pair in ours.offsets.tolist()] == [pair for row in theirs for pair in row.offsets]
        assert tokenizer.encode_batch(texts).ids.tolist() == ours.ids.tolist()


def test_types_of_the_arrays(tokenizer: BackendTokenizer) -> None:
    for texts in ([], [""], ["a", ""]):
        encoding = tokenizer.encode_batch(texts, with_offsets=True, add_special_tokens=False)
        assert encoding.offsets is not None
        assert (encoding.ids.dtype, encoding.offsets.dtype, encoding.row_splits.dtype) == (np.int32, np.int32, np.int64)
        assert encoding.offsets.shape == (len(encoding.ids), 2)
        assert len(encoding) == len(texts)


def test_a_bad_text_is_named(tokenizer: BackendTokenizer) -> None:
    with pytest.raises(ValueError, match=r"text 1 .* lone surrogate U\+D800 at character 2"):
        tokenizer.encode_batch(["fine", "no\ud800"])
    with pytest.raises(TypeError, match="text 1 is NoneType, not str"):
        tokenizer.encode_batch(["fine", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenizer.tokenize("\udfff")


def test_pickles_with_its_added_tokens(tokenizer: BackendTokenizer) -> None:
    tokenizer.add_tokens(["zebra"])
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again("a zebra b") == tokenizer("a zebra b")
    assert len(again) == len(tokenizer)


def test_added_tokens_are_matched_saved_and_loaded(tokenizer: BackendTokenizer, tmp_path: Path) -> None:
    n_before = len(tokenizer)
    assert tokenizer.add_tokens(["zebra", "[X]"]) == 2
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<q>"]}) == 1
    ids = tokenizer("zebra<q>[X]", add_special_tokens=False)["input_ids"]
    assert ids == [n_before, n_before + 2, n_before + 1]
    assert "zebra" in tokenizer.decode(ids, skip_special_tokens=True)
    assert "<q>" not in tokenizer.decode(ids, skip_special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again("zebra<q>[X]", add_special_tokens=False)["input_ids"] == ids
    assert again.get_added_vocab() == tokenizer.get_added_vocab()
    assert len(again) == n_before + 3


def test_a_token_with_a_role_takes_the_white_space_that_it_says(roberta: RobertaTokenizer, tmp_path: Path) -> None:
    roberta.save_pretrained(tmp_path)
    assert roberta.tokenize("a <mask> b") == ["a", " <mask>", "Ġ", "b"]
    greedy = RobertaTokenizer(
        tmp_path / "vocab.json", tmp_path / "merges.txt", mask_token=SpecialToken("<mask>", rstrip=True)
    )
    assert greedy.tokenize("a <mask> b") == ["a", "Ġ", "<mask> ", "b"]


def test_an_id_that_the_library_cannot_give_is_refused(roberta: RobertaTokenizer, tmp_path: Path) -> None:
    roberta.save_pretrained(tmp_path)
    gap = SpecialToken("zebra", id=len(roberta) + 7)
    with pytest.raises(ValueError, match="'zebra' has id"):
        RobertaTokenizer.from_pretrained(tmp_path, added_tokens=[gap])


def test_special_tokens_in_a_text_can_be_plain_text(roberta: RobertaTokenizer) -> None:
    parsed = roberta.encode_batch(["</s>"], add_special_tokens=False)
    plain = roberta.encode_batch(["</s>"], add_special_tokens=False, parse_special_tokens=False)
    assert parsed.ids.tolist() == [roberta.sep_token_id]
    assert roberta.convert_ids_to_tokens(plain.ids) == list("</s>")
    assert roberta.encode_batch(["</s>"], add_special_tokens=False).ids.tolist() == [roberta.sep_token_id]


def test_padding_and_truncation_of_a_tokenizer_json_are_the_callers(tmp_path: Path) -> None:
    library = byte_level()
    library.enable_padding(length=9)
    library.enable_truncation(3)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = RobertaTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode_batch(["abcdef", "a"], add_special_tokens=False).lengths.tolist() == [5, 1]


def test_ids_out_of_the_vocabulary(tokenizer: BackendTokenizer) -> None:
    with pytest.raises(IndexError, match="vocabulary of"):
        tokenizer.convert_ids_to_tokens([len(tokenizer)])
    for missing in (len(tokenizer), -1):
        with pytest.raises(IndexError, match="the tokenizer has"):
            tokenizer.decode([0, missing])
    assert tokenizer.convert_tokens_to_ids(["never seen"]) == [tokenizer.unk_token_id]
    assert tokenizer.get_vocab() == tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a tokenizer.json"),
        ("version https://git-lfs.github.com/spec/v1", "is not a tokenizer.json"),
        (json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}), "holds a WordLevel model"),
    ],
)
def test_a_file_that_is_no_such_tokenizer_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UnusableError, match=message):
        read_tokenizer(locate(str(tmp_path / "tokenizer.json")), "BPE")
    with pytest.raises(UnusableError, match="there is no such file"):
        read_tokenizer(locate(str(tmp_path / "none.json")), "BPE")
