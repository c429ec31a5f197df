"""RobertaTokenizer equals transformers 5.x: ids, offsets, words, windows, text; from and to the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.tokenizers.roberta import RobertaTokenizer, RobertaTokenizerFast
from tests.tasks.random_models import learn_bpe

ROOT = Path(__file__).parent.parent.parent
NAUGHTY: list[str] = json.loads((ROOT / "tests" / "data" / "blns.json").read_text(encoding="utf-8"))
SENTENCES: list[str] = pq.read_table(ROOT / "demo" / "treebanks" / "treebanks.parquet", columns=["text"])["text"][
    ::25
].to_pylist()
TEXTS = [*NAUGHTY, *SENTENCES, "two  blanks", " <mask> and  <mask>", "<s>x</s>", "tab\there\n", "\u3000wide", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 1,000 tokens, trained here, as transformers 4.x saved one: all three files."""
    path = tmp_path_factory.mktemp("roberta")
    learn_bpe(path, SENTENCES, 1000).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def roberta(folder: Path) -> RobertaTokenizer:
    return RobertaTokenizer.from_pretrained(folder)


def as_tuples(rows: list[Any]) -> list[Any]:
    """Pairs of offsets as tuples; transformers gives lists when it pads."""
    return [[tuple(item) if isinstance(item, list) else item for item in row] for row in rows]


# -- the same as transformers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"add_prefix_space": True}, {"trim_offsets": False}])
def test_single_texts_are_those_of_transformers(folder: Path, options: dict[str, bool]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RobertaTokenizer.from_pretrained(str(folder), **options)
    ours = RobertaTokenizer.from_pretrained(folder, **options)
    expected, found = (tokenizer(TEXTS, return_offsets_mapping=True) for tokenizer in (theirs, ours))
    assert found["input_ids"] == expected["input_ids"]
    assert found["offset_mapping"] == as_tuples(expected["offset_mapping"])
    assert set(found) == set(expected)
    for row, ids in enumerate(expected["input_ids"]):
        assert found.word_ids(row) == expected.word_ids(row)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    assert [ours.tokenize(text) for text in TEXTS] == [theirs.tokenize(text) for text in TEXTS]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"truncation": True, "max_length": 21},
        {"truncation": "only_first", "max_length": 90, "stride": 7, "return_overflowing_tokens": True},
        {"truncation": "only_second", "max_length": 90, "stride": 7, "return_overflowing_tokens": True},
        {"truncation": "longest_first", "max_length": 20, "stride": 3, "return_overflowing_tokens": True},
        {"truncation": True, "max_length": 33, "padding": "max_length", "return_special_tokens_mask": True},
        {"padding": True, "pad_to_multiple_of": 8, "padding_side": "left"},
    ],
)
def test_pairs_and_windows_are_those_of_transformers(
    folder: Path, roberta: RobertaTokenizer, options: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RobertaTokenizer.from_pretrained(str(folder))
    firsts, seconds = (SENTENCES[:90], SENTENCES[90:180])
    if options.get("truncation") in ("only_first", "only_second"):
        # The other text has to leave room.
        short = ["Who?", "What is  <mask>?"] * 45
        firsts, seconds = (firsts, short) if options["truncation"] == "only_first" else (short, seconds)
    expected, found = (
        tokenizer(firsts, seconds, return_offsets_mapping=True, return_token_type_ids=True, **options)
        for tokenizer in (theirs, roberta)
    )
    assert set(found) == set(expected)
    for name in expected:
        values = expected[name]
        assert found[name] == (as_tuples(values) if name == "offset_mapping" else values), name
    rows = range(len(found["input_ids"]))
    assert [found.sequence_ids(row) for row in rows] == [expected.sequence_ids(row) for row in rows]


@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_words_are_those_of_transformers(folder: Path, add_prefix_space: bool) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["Hello", "wörld", "<mask>", " a b", "", "x"]
    expected, found = (
        kind.from_pretrained(str(folder), add_prefix_space=add_prefix_space)(
            words, is_split_into_words=True, return_offsets_mapping=True
        )
        for kind in (transformers.RobertaTokenizer, RobertaTokenizer)
    )
    assert found["input_ids"] == expected["input_ids"]
    assert found.word_ids() == expected.word_ids()
    assert found["offset_mapping"] == list(map(tuple, expected["offset_mapping"]))


# -- what does not need it --------------------------------------------------------------------------------------


def test_template_and_type_ids(roberta: RobertaTokenizer) -> None:
    row = roberta("a", "b", return_token_type_ids=True)
    assert roberta.convert_ids_to_tokens(row["input_ids"]) == ["<s>", "a", "</s>", "</s>", "b", "</s>"]
    assert row["token_type_ids"] == [0] * 6
    assert set(roberta("a")) == {"input_ids", "attention_mask"}
    assert roberta.create_token_type_ids_from_sequences([7], [8]) == [0] * 6
    assert roberta.build_inputs_with_special_tokens([7], [8]) == [0, 7, 2, 2, 8, 2]
    assert (roberta.vocab_size, len(roberta), roberta.pad_token_id, roberta.mask_token_id) == (1000, 1000, 1, 999)


def test_type_ids_are_zero_without_the_template_too(roberta: RobertaTokenizer) -> None:
    row = roberta("a", "b", add_special_tokens=False, return_token_type_ids=True)
    assert row["token_type_ids"] == [0, 0]


def test_windows_of_a_text_with_prefix_space_have_trimmed_offsets(folder: Path) -> None:
    """The library takes the blank before a window's first word for the prefix, and leaves it in: 4 to 8, not 5 to 8."""
    tokenizer = RobertaTokenizer.from_pretrained(folder, add_prefix_space=True)
    windows = tokenizer(
        "aaa bbb ccc", truncation=True, max_length=5, return_overflowing_tokens=True, return_offsets_mapping=True
    )
    text = "aaa bbb ccc"
    starts = [row[1][0] for row in windows["offset_mapping"]]
    assert not any(text[start].isspace() for start in starts)


def test_a_mask_takes_the_white_space_on_its_left(roberta: RobertaTokenizer, folder: Path) -> None:
    from_parts = RobertaTokenizer(folder / "vocab.json", folder / "merges.txt")
    for tokenizer in (roberta, from_parts):
        assert tokenizer.tokenize("a  <mask> b") == ["a", "  <mask>", "Ġb"]


def test_vocab_and_merges_are_the_same_tokenizer_as_tokenizer_json(folder: Path, tmp_path: Path) -> None:
    whole = RobertaTokenizer(tokenizer_file=folder / "tokenizer.json")
    merges = (folder / "merges.txt").read_bytes()
    assert merges.startswith(b"#version")
    expected = whole(TEXTS, return_offsets_mapping=True)
    (tmp_path / "vocab.json").write_bytes((folder / "vocab.json").read_bytes())
    for content in (merges, merges.split(b"\n", 1)[1], merges.replace(b"\n", b"\r\n")):
        (tmp_path / "merges.txt").write_bytes(content)
        assert RobertaTokenizer.from_pretrained(tmp_path)(TEXTS, return_offsets_mapping=True) == expected


def test_saved_files_and_options(folder: Path, tmp_path: Path) -> None:
    tokenizer = RobertaTokenizerFast.from_pretrained(folder, add_prefix_space=True, trim_offsets=False)
    files = tokenizer.save_pretrained(tmp_path)
    names = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"]
    assert [Path(file).name for file in files] == names
    assert (tmp_path / "merges.txt").read_bytes() == (folder / "merges.txt").read_bytes()
    (tmp_path / "tokenizer_config.json").unlink()
    again = RobertaTokenizer.from_pretrained(tmp_path)
    assert (again.add_prefix_space, again.trim_offsets) == (True, False)
    assert again(TEXTS, return_offsets_mapping=True) == tokenizer(TEXTS, return_offsets_mapping=True)
    assert tokenizer.save_vocabulary(tmp_path, "x")[1].endswith("/x-vocab.json")


def test_files_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"neither tokenizer\.json nor vocab\.json"):
        RobertaTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="give vocab_file and merges_file"):
        RobertaTokenizer(folder / "vocab.json")
    (tmp_path / "vocab.json").write_bytes((folder / "vocab.json").read_bytes())
    with pytest.raises(UnusableError, match=r"merges\.txt: there is no vocabulary here"):
        RobertaTokenizer.from_pretrained(tmp_path)
    for content in (b"a b c\n", b"\xff\n", "日 本\n".encode()):
        (tmp_path / "merges.txt").write_bytes(content)
        with pytest.raises(UnusableError, match=r"merges\.txt: these are no merges of"):
            RobertaTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(UnusableError, match="is not a JSON object"):
        RobertaTokenizer.from_pretrained(tmp_path)
