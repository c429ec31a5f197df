"""A piece in the place of a mask: only the blank before it may change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.masks import Mask, Piece, fill_mask, find_mask

MASK = "[MASK]"


@pytest.mark.parametrize(
    ("text", "begins_word", "expected"),
    [
        ("in [MASK].", True, "in Rome."),
        ("in [MASK].", False, "inRome."),
        ("in  \n[MASK] .", True, "in  \nRome ."),
        ("in  \n[MASK] .", False, "inRome ."),
        ("in[MASK]", True, "in Rome"),
        ("in[MASK]", False, "inRome"),
        ("[MASK] is", True, "Rome is"),
        (" [MASK]is", True, " Romeis"),
        (" [MASK]is", False, "Romeis"),
        ("在[MASK]。", False, "在Rome。"),
    ],
)
@pytest.mark.parametrize("token_covers_blank", [True, False])
@pytest.mark.parametrize("word", ["Rome", " Rome"])
def test_blanks(text, begins_word, expected, token_covers_blank, word):
    start = text.index(MASK)
    before = len(text[:start].rstrip())
    mask = find_mask(text, before, before if token_covers_blank else start, start + len(MASK), MASK)
    assert text[mask.start : mask.end] == MASK
    if begins_word or word == "Rome":
        assert fill_mask(text, mask, Piece(word, begins_word)) == expected


def test_white_space_that_a_token_holds_is_not_the_masks():
    mask = find_mask("in \t[MASK]", 3, 4, 10, MASK)
    assert mask == Mask(3, 4, 10)
    assert fill_mask("in \t[MASK]", mask, Piece("x", begins_word=False)) == "in x"


def test_a_mask_that_a_normalizer_made_is_all_that_its_token_covers():
    assert find_mask("in ［ＭＡＳＫ］ .", 2, 3, 9, MASK) == Mask(2, 3, 9)


@given(st.text(), st.text(), st.text(min_size=1), st.booleans())
def test_what_follows_stays_and_what_precedes_loses_at_most_white_space(before, after, word, begins_word):
    text = before + MASK + after
    start = len(before)
    mask = find_mask(text, len(before.rstrip()), start, start + len(MASK), MASK)
    filled = fill_mask(text, mask, Piece(word, begins_word))
    shown = word.removeprefix(" ") if begins_word else word
    assert filled.endswith(shown + after)
    kept = filled[: len(filled) - len(shown + after)]
    assert kept in ((before, before + " ") if begins_word else (before.rstrip(),))
