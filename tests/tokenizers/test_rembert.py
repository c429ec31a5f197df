"""RemBertTokenizer gives the published ids, offsets in the original text, and defined results for odd input."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.errors import UnusableError
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.special_tokens import SpecialToken

DATA = Path(__file__).parent.parent / "data"
NAUGHTY: list[str] = json.loads((DATA / "blns.json").read_text(encoding="utf-8"))

published = RemBertTokenizer(DATA / "test_sentencepiece.model")
tiny = RemBertTokenizer(DATA / "tiny_multilingual_8k.model")


def ids_of(tokenizer: RemBertTokenizer, text: str, **options: bool) -> list[int]:
    return tokenizer.encode_batch([text], **options).ids.tolist()


def surfaces(text: str, tokenizer: RemBertTokenizer = tiny) -> list[tuple[str, str]]:
    """Each token of `text` beside the stretch of text that its offsets name."""
    encoding = tokenizer.encode_batch([text], add_special_tokens=False, with_offsets=True)
    assert encoding.offsets is not None
    tokens = tokenizer.convert_ids_to_tokens(encoding.ids)
    return [(token, text[a:b]) for token, (a, b) in zip(tokens, encoding.offsets.tolist(), strict=True)]


# -- published ids (transformers 4.x, tests/models/rembert/test_tokenization_rembert.py) --------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("This is a test", [285, 46, 10, 170, 382]),
        (
            "I was born in 92000, and this is falsé.",
            [8, 21, 84, 55, 24, 19, 7, 0, 602, 347, 347, 347, 3, 12, 66, 46, 72, 80, 6, 0, 4],
        ),
    ],
)
def test_published_ids_without_template(text: str, ids: list[int]) -> None:
    assert ids_of(published, text, add_special_tokens=False) == ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("In the sky up above", [388, 5, 47, 45, 30, 118, 10, 65, 20, 123]),
        ("清水寺は京都にある。", [7, 0]),
        ("The cat. . Sat <s>.In a room", [68, 69, 76, 4, 7, 4, 166, 76, 7, 0, 6, 0, 4, 100, 24, 10, 136]),
        ("Bonjour! Hello! こんにちは!", [295, 109, 999, 20, 108, 146, 156, 86, 20, 146, 7, 0, 146]),
        (
            "Extra spaces\tand\nline breaks\r\nshould be handled.",
            [454, 297, 14, 35, 18, 277, 18, 133, 6, 12, 485, 84, 56, 18, 45, 6, 173, 36, 363, 338, 4],
        ),
    ],
)
def test_published_ids_with_template(text: str, ids: list[int]) -> None:
    assert ids_of(published, text) == [1000, *ids, 1001]


def test_published_pieces_show_what_is_unknown() -> None:
    pieces = published.tokenize("I was born in 92000, and this is falsé.")
    assert pieces[6:9] == ["▁", "9", "2"]
    assert pieces[-3:] == ["s", "é", "."]


# -- special tokens -----------------------------------------------------------------------------------------


def test_specials_that_the_model_lacks_follow_its_vocabulary() -> None:
    assert (published.vocab_size, len(published)) == (1000, 1004)
    assert published.all_special_tokens == ["[CLS]", "[SEP]", "<unk>", "<pad>", "[MASK]"]
    assert published.all_special_ids == [1000, 1001, 0, 1002, 1003]


def test_specials_of_the_model_keep_their_ids() -> None:
    assert (tiny.pad_token_id, tiny.unk_token_id) == (0, 2)
    assert (tiny.cls_token_id, tiny.sep_token_id, tiny.mask_token_id) == (4, 5, 6)
    assert len(tiny) == tiny.vocab_size


def test_specials_in_the_text_are_parsed_and_keep_their_offsets() -> None:
    text = "Paris is the  [MASK] of[SEP] France"
    found = surfaces(text)
    assert ("[MASK]", "[MASK]") in found
    assert ("[SEP]", "[SEP]") in found
    assert "".join(surface for _, surface in found) == text.replace(" ", "")


def test_the_mask_takes_the_white_space_on_its_left_and_chunks_stand_alone() -> None:
    mask, x, y = tiny.mask_token_id, ids_of(tiny, "x", add_special_tokens=False), "y"
    expected = [*x, mask, *ids_of(tiny, y, add_special_tokens=False)]
    for text in ("x[MASK]y", "x [MASK]y", "x \t\u3000[MASK]y", "x [MASK] y"):
        assert ids_of(tiny, text, add_special_tokens=False) == expected
    assert ids_of(tiny, "  [MASK]", add_special_tokens=False) == [mask]


def test_an_additional_token_wins_when_it_is_longer() -> None:
    tokenizer = RemBertTokenizer(
        DATA / "tiny_multilingual_8k.model",
        additional_special_tokens=["<e>", SpecialToken("<e>1", rstrip=True)],
    )
    ids = tokenizer.encode_batch(["<e>1  a<e>a"], add_special_tokens=False).ids.tolist()
    a = ids_of(tiny, "a", add_special_tokens=False)
    assert ids == [tiny.vocab_size + 1, *a, tiny.vocab_size, *a]
    assert tokenizer.all_special_tokens[-2:] == ["<e>", "<e>1"]


def test_specials_can_be_taken_as_plain_text() -> None:
    ids = tiny.encode_batch(["a [CLS]"], add_special_tokens=False, parse_special_tokens=False).ids.tolist()
    assert tiny.cls_token_id not in ids
    assert len(ids) > 2


# -- offsets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello world", [("▁H", "H"), ("ell", "ell"), ("o", "o"), ("▁w", "w"), ("or", "or"), ("ld", "ld")]),
        ("ﬁne  ＡＢＣ", [("▁fin", "ﬁn"), ("e", "e"), ("▁A", "Ａ"), ("B", "Ｂ"), ("C", "Ｃ")]),
        ("e\u0301te\u0301", [("▁été", "e\u0301te\u0301")]),
        ("a\u3000b\n\t c", [("▁a", "a"), ("▁b", "b"), ("▁c", "c")]),
        ("ze\u200bro\ufeff", [("▁ze", "ze"), ("▁ro", "ro")]),
        ("a\x01b\x01", [("▁ab", "a\x01b")]),
        ("a ½", [("▁a", "a"), ("▁1", "½"), ("<unk>", "½"), ("2", "½")]),
        ("  日本 語", [("▁", ""), ("日本", "日本"), ("▁", ""), ("語", "語")]),
        ("a\x00b", [("▁a", "a"), ("<unk>", "\x00"), ("b", "b")]),
        ("👨\u200d👩", [("▁", ""), ("<unk>", "👨"), ("▁", ""), ("<unk>", "👩")]),
    ],
)
def test_offsets_name_the_surface_of_each_token(text: str, expected: list[tuple[str, str]]) -> None:
    assert surfaces(text) == expected


def test_a_lone_space_piece_is_empty_before_the_next_character() -> None:
    encoding = tiny.encode_batch(["日  日"], add_special_tokens=False, with_offsets=True)
    assert encoding.offsets is not None
    assert encoding.offsets.tolist() == [[0, 0], [0, 1], [3, 3], [3, 4]]


def check_encoding(texts: list[str], tokenizer: RemBertTokenizer) -> None:
    plain = tokenizer.encode_batch(texts)
    encoding = tokenizer.encode_batch(texts, with_offsets=True)
    assert encoding.ids.tolist() == plain.ids.tolist()
    assert encoding.row_splits.tolist() == plain.row_splits.tolist()
    assert encoding.ids.dtype == np.int32
    assert encoding.offsets is not None
    assert encoding.offsets.dtype == np.int32
    assert len(encoding) == len(texts)
    for i, text in enumerate(texts):
        row = encoding.row(i)
        assert row.offsets is not None
        offsets = row.offsets[1:-1]
        assert (np.diff(offsets, axis=0) >= 0).all()
        assert (offsets[:, 0] <= offsets[:, 1]).all()
        assert (offsets >= 0).all()
        assert (offsets <= len(text)).all()
        has_text = offsets[offsets[:, 0] < offsets[:, 1]]
        for start, end in has_text.tolist():
            assert text[start] != " "
            assert text[end - 1] != " "


@pytest.mark.parametrize("tokenizer", [published, tiny])
def test_naughty_strings_in_one_batch_and_alone(tokenizer: RemBertTokenizer) -> None:
    check_encoding(NAUGHTY, tokenizer)
    together = tokenizer.encode_batch(NAUGHTY, with_offsets=True)
    for i, text in enumerate(NAUGHTY):
        alone, row = tokenizer.encode_batch([text], with_offsets=True), together.row(i)
        assert alone.ids.tolist() == row.ids.tolist()
        assert np.array_equal(alone.offsets, row.offsets)


odd_text = st.text(
    st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("ab  \n\u3000\u200bﬁ½ﷺ\u0301日👨\u200d▁ガ")),
    max_size=20,
)
with_specials = st.lists(
    st.one_of(odd_text, st.sampled_from(["[MASK]", "[CLS]", "<pad>", " [MASK] "])), max_size=5
).map("".join)


@given(st.lists(with_specials, max_size=4))
def test_offsets_are_ordered_and_inside_the_text(texts: list[str]) -> None:
    check_encoding(texts, tiny)


@given(with_specials)
def test_every_visible_ascii_letter_is_covered(text: str) -> None:
    encoding = tiny.encode_batch([text], add_special_tokens=False, with_offsets=True)
    assert encoding.offsets is not None
    covered = {i for start, end in encoding.offsets.tolist() for i in range(start, end)}
    assert {i for i, letter in enumerate(text) if letter.isascii() and letter.isalpha()} <= covered


def test_lower_case_keeps_offsets_in_the_original_text() -> None:
    lowering = RemBertTokenizer(DATA / "tiny_multilingual_8k.model", do_lower_case=True)
    text = "İİ HELLO [MASK] Σ"
    assert "İ".lower() != "İ"
    assert len("İ".lower()) == 2
    assert ids_of(lowering, "HELLO [MASK]") == ids_of(tiny, "hello [MASK]")
    pieces = [surface for _, surface in surfaces(text, lowering)]
    assert "".join(pieces).endswith("HELLO[MASK]Σ")
    check_encoding([text, "", "ABC"], lowering)


# -- template, pairs, rows ----------------------------------------------------------------------------------


def test_pairs_have_types_and_offsets_of_their_own_text() -> None:
    encoding = tiny.encode_batch(["a b", ""], ["c", "d e"], with_offsets=True)
    a, b, c, d, e = (ids_of(tiny, letter, add_special_tokens=False)[0] for letter in "abcde")
    assert encoding.row(0).ids.tolist() == [4, a, b, 5, c, 5]
    assert encoding.row(1).ids.tolist() == [4, 5, d, e, 5]
    assert encoding.row_splits.tolist() == [0, 6, 11]
    assert encoding.type_ids is not None
    assert encoding.offsets is not None
    assert encoding.special_tokens_mask is not None
    assert encoding.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1]
    assert encoding.special_tokens_mask.astype(int).tolist() == [1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1]
    assert encoding.row(0).offsets.tolist() == [[0, 0], [0, 1], [2, 3], [0, 0], [0, 1], [0, 0]]
    assert (tiny.num_special_tokens_to_add(), tiny.num_special_tokens_to_add(pair=True)) == (2, 3)


def test_a_mask_written_in_the_text_is_not_of_the_template() -> None:
    encoding = tiny.encode_batch(["[MASK]"])
    assert encoding.special_tokens_mask is not None
    assert encoding.special_tokens_mask.tolist() == [True, False, True]


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000", "\u200b"])
def test_empty_and_blank_texts_are_the_template_alone(text: str) -> None:
    for with_offsets in (False, True):
        encoding = tiny.encode_batch([text], with_offsets=with_offsets)
        assert encoding.ids.tolist() == [4, 5]
    assert ids_of(tiny, text, add_special_tokens=False) == []


@pytest.mark.parametrize("with_offsets", [False, True])
def test_no_texts(with_offsets: bool) -> None:
    encoding = tiny.encode_batch([], with_offsets=with_offsets)
    assert len(encoding) == 0
    assert encoding.ids.dtype == np.int32
    assert (encoding.offsets is not None) is with_offsets


def test_a_megabyte_of_one_character_is_encoded_whole() -> None:
    encoding = tiny.encode_batch(["日" * 350_000])
    assert len(encoding.ids) > 170_000
    assert set(encoding.ids[2:-1].tolist()) == {ids_of(tiny, "日日日")[2]}


def test_rows_and_lengths() -> None:
    encoding = tiny.encode_batch(["a", "a b c"], with_offsets=True)
    assert encoding.lengths.tolist() == [3, 5]
    assert encoding.row(-1).ids.tolist() == encoding.ids[3:].tolist()
    assert len(encoding.row(1)) == 1
    with pytest.raises(IndexError, match="row 2"):
        encoding.row(2)


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_offsets", [False, True])
def test_a_lone_surrogate_names_the_text(with_offsets: bool) -> None:
    with pytest.raises(ValueError, match=r"text 1 .* U\+D800 at character 2"):
        tiny.encode_batch(["fine", "é \ud800"], with_offsets=with_offsets)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="text 1 is NoneType"):
        tiny.encode_batch(["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not one str"):
        tiny.encode_batch("abc")
    with pytest.raises(ValueError, match="2 texts but 1 pairs"):
        tiny.encode_batch(["a", "b"], ["c"])


# -- files --------------------------------------------------------------------------------------------------


def test_a_missing_model_says_which_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnusableError) as caught:
        RemBertTokenizer.from_pretrained(tmp_path)
    (fault,) = caught.value.faults
    assert fault.where == f"{tmp_path}/sentencepiece.model"
    assert "copy the file" in fault.fix


@pytest.mark.parametrize("content", [b"", b"not a model", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sentencepiece.model").write_bytes(content)
    with pytest.raises(UnusableError, match="is not a SentencePiece model"):
        RemBertTokenizer.from_pretrained(tmp_path)


def write_folder(folder: Path, **files: object) -> None:
    (folder / "sentencepiece.model").write_bytes((DATA / "test_sentencepiece.model").read_bytes())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_both_forms_of_special_tokens_are_read(tmp_path: Path) -> None:
    write_folder(
        tmp_path,
        tokenizer_config={"cls_token": "<s>", "do_lower_case": True, "model_max_length": 256},
        special_tokens_map={"mask_token": {"content": "<m>", "lstrip": False}, "sep_token": "</s>"},
    )
    tokenizer = RemBertTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (1, 2)
    assert (tokenizer.mask_token, tokenizer.do_lower_case, tokenizer.model_max_length) == ("<m>", True, 256)
    assert tokenizer.tokenize("A <m>") == ["▁a", "<m>"]
    assert RemBertTokenizer.from_pretrained(tmp_path, do_lower_case=False).do_lower_case is False


def test_ids_of_a_saved_tokenizer_are_kept(tmp_path: Path) -> None:
    added = {
        "1005": {"content": "<new>", "lstrip": False, "special": False},
        "1007": {"content": "[MASK]", "lstrip": True, "special": True},
    }
    write_folder(tmp_path, tokenizer_config={"added_tokens_decoder": added, "mask_token": "[MASK]"})
    tokenizer = RemBertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.mask_token_id == 1007
    assert tokenizer.convert_tokens_to_ids(["<new>", "▁the", "no such piece"]) == [1005, 5, 0]
    assert tokenizer.decode([5, 1005, 1007], skip_special_tokens=True) == "the <new>"


@pytest.mark.parametrize("content", ["{", "[]", '{"cls_token": 3}', '{"cls_token": {"single_word": true}}'])
def test_a_damaged_config_is_refused(tmp_path: Path, content: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UnusableError, match=r"tokenizer_config\.json"):
        RemBertTokenizer.from_pretrained(tmp_path)


def test_saving_keeps_the_bytes_and_loading_gives_the_same(tmp_path: Path) -> None:
    original = RemBertTokenizer(
        DATA / "test_sentencepiece.model", additional_special_tokens=["<x>"], model_max_length=128
    )
    original.save_pretrained(tmp_path / "a")
    loaded = RemBertTokenizer.from_pretrained(f"file://{tmp_path}/a")
    loaded.save_pretrained(tmp_path / "b")
    for name in ("sentencepiece.model", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/sentencepiece.model").read_bytes() == (DATA / "test_sentencepiece.model").read_bytes()
    text = "a <x> [MASK] b"
    assert ids_of(loaded, text) == ids_of(original, text)
    assert loaded.model_max_length == 128


def test_a_folder_in_another_filesystem() -> None:
    tiny.save_pretrained("memory://models/tiny")
    assert ids_of(RemBertTokenizer.from_pretrained("memory://models/tiny/"), "日 a") == ids_of(tiny, "日 a")


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    model = tmp_path / "gone.model"
    model.write_bytes((DATA / "tiny_multilingual_8k.model").read_bytes())
    packed = pickle.dumps(RemBertTokenizer(model))
    model.unlink()
    copy = pickle.loads(packed)
    check_encoding(["a ½ [MASK]", "日本"], copy)
    assert ids_of(copy, "a ½ [MASK]") == ids_of(tiny, "a ½ [MASK]")


# -- oracle: the tokenizers backend of transformers ---------------------------------------------------------


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> object:
    """transformers' tokenizer over the same pieces, from a folder that `save_pretrained` wrote."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("saved")
    tiny.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_transformers_loads_what_is_saved(backend: object) -> None:
    assert type(backend).__name__ == "RemBertTokenizer"
    assert backend.mask_token_id == tiny.mask_token_id  # type: ignore[attr-defined]
    assert backend.cls_token_id == tiny.cls_token_id  # type: ignore[attr-defined]


def test_ids_and_offsets_equal_the_backend_on_simple_text(backend: object) -> None:
    # Simple text: the two differ on `` and '' and on mixed white space, which the backend rewrites itself.
    texts = [
        "Hello world, this is a test.",
        "Der Fluß ist breit.",
        "Привет мир",
        "日本語 テキスト",
        "x [MASK] y",
        "ﬁne ＡＢＣ",
    ]
    for text in texts:
        expected = backend(text, add_special_tokens=False, return_offsets_mapping=True)  # type: ignore[operator]
        encoding = tiny.encode_batch([text], add_special_tokens=False, with_offsets=True)
        assert encoding.ids.tolist() == expected["input_ids"]
        assert encoding.offsets is not None
        for (start, end), (their_start, their_end) in zip(
            encoding.offsets.tolist(), expected["offset_mapping"], strict=True
        ):
            # The backend leaves the white space before a word in its range.
            assert text[start:end] == text[their_start:their_end].lstrip() or start == end


def test_it_needs_neither_torch_nor_ray() -> None:
    code = "import sys, rembert_ray.tokenizers.rembert; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_encoding_is_a_value() -> None:
    encoding = tiny.encode_batch(["a"])
    assert isinstance(encoding, Encoding)
    with pytest.raises(AttributeError):
        encoding.ids = encoding.ids  # type: ignore[misc]
