"""Marks in a text: whatever they overlap, no character is lost, and what is cut out is around them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.shown import SPARKS, Mark, excerpts, pieces, sparkline, tints

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
MARKS = st.lists(st.builds(Mark, st.integers(-5, 90), st.integers(-5, 90), st.sampled_from("AB")), max_size=12)


@given(TEXTS, MARKS)
def test_pieces_are_the_whole_text_in_order_and_know_their_marks(text, marks):
    found = list(pieces(text, marks))
    assert "".join(piece.text for piece in found) == text
    place = 0
    for piece in found:
        inside = {mark for mark in marks if mark.start < place + len(piece.text) and mark.end > place and piece.text}
        inside = {mark for mark in inside if mark.start < mark.end}
        assert set(piece.marks) == inside
        assert all(mark.start <= place and mark.end >= place + len(piece.text) for mark in piece.marks)
        place += len(piece.text)
    drawn = [mark for mark in marks if max(mark.start, 0) < min(mark.end, len(text))]
    # Each mark that has a character in the text is closed once: its label stands behind it once.
    assert sorted(map(repr, (mark for piece in found for mark in piece.closes))) == sorted(map(repr, drawn))


@given(st.integers(0, 80), MARKS, st.integers(1, 60), st.integers(0, 10))
def test_excerpts_are_in_order_apart_and_no_longer_than_asked_for(n_characters, marks, most, around):
    text = "x" * n_characters
    found = excerpts(text, marks, most, around)
    assert sum(map(len, found)) <= max(most, len(text) if len(text) <= most else 0)
    assert all(0 <= part.start <= part.stop <= len(text) for part in found)
    assert all(first.stop < second.start for first, second in pairwise(found))
    if len(text) <= most:
        assert found == [range(len(text))]


def test_a_long_text_is_cut_around_its_marks():
    text = "x" * 1000 + "Ann" + "y" * 1000 + "Bob" + "z" * 1000
    found = excerpts(text, [Mark(2003, 2006, "PER"), Mark(1000, 1003, "PER")], most=400, around=60)
    assert [text[part.start : part.stop] for part in found] == [
        "x" * 60 + "Ann" + "y" * 60,
        "y" * 60 + "Bob" + "z" * 60,
    ]


def test_a_label_keeps_its_tint_and_shares_it_only_when_there_are_too_few():
    labels = [f"L{number}" for number in range(10)]
    found = tints(labels, 12)
    assert found == tints(reversed(labels), 12)
    assert len(set(found.values())) == 10
    assert set(tints(labels, 3).values()) == {0, 1, 2}


@given(st.lists(st.floats(width=32), max_size=40))
def test_a_sparkline_has_a_character_for_each_number(numbers):
    found = sparkline(numbers)
    assert len(found) == len(numbers)
    assert set(found) <= set(SPARKS) | {" "}
