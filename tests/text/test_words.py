"""White space falls off the edges of a span, and a span grows to whole words where there are words."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.words import trim_bounds, word_bounds

TEXTS = st.text(st.sampled_from("ab.\n\u3000é\u0301א中文ｗ。か\u1680👩ไท"), max_size=30)


def grow(text: str, start: int, end: int) -> str:
    bounds = word_bounds(text)
    return text[bounds.starts[start] : bounds.ends[end]]


def test_words_are_what_stands_between_white_space():
    text = "Saint Petersburg, 1703\u00a0war's"
    assert grow(text, 8, 10) == "Petersburg,"
    assert grow(text, 3, 8) == "Saint Petersburg,"
    assert grow(text, 19, 20) == "1703"
    assert grow(text, 26, 27) == "war's"


def test_scripts_without_spaces_are_left_as_they_are():
    assert grow("在北京大学的2008年", 1, 3) == "北京"
    assert grow("在北京大学的2008年", 7, 8) == "2008"
    assert grow("ภาษาไทย", 2, 4) == "ษา"
    assert grow("東京タワー。", 2, 5) == "タワー"
    # Korean has spaces.
    assert grow("서울 특별시에서", 4, 5) == "특별시에서"


@given(TEXTS)
def test_trimming_is_that_of_str_strip(text):
    bounds = trim_bounds(text)
    for start in range(len(text) + 1):
        assert bounds.starts[start] == len(text) - len(text[start:].lstrip())
        assert bounds.ends[start] == len(text[:start].rstrip())


@given(TEXTS)
def test_words_are_a_partition(text):
    bounds = word_bounds(text)
    assert (bounds.starts <= np.arange(len(text) + 1)).all()
    assert (bounds.ends >= np.arange(len(text) + 1)).all()
    assert "".join(text[start : bounds.ends[start + 1]] for start in dict.fromkeys(bounds.starts[:-1].tolist())) == text


def test_white_space_is_that_of_unicode():
    text = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    is_trimmed = trim_bounds(text).starts[:-1] != np.arange(len(text))
    # Python also strips the four information separators of ASCII, which the property White_Space does not hold.
    found = "".join(text[index] for index in np.flatnonzero(is_trimmed)) + "\x1c\x1d\x1e\x1f"
    assert sorted(found) == sorted(character for character in text if character.isspace())
    assert all(unicodedata.category(one) in ("Zs", "Zl", "Zp", "Cc") for one in found)
