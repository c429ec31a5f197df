"""Sentences by their marks, in several scripts, and that nothing is lost whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Pi is 3.14 or so. Yes", ["Pi is 3.14 or so.", "Yes"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("今日は。元気？はい", ["今日は。", "元気？", "はい"]),
        ("यह एक है। दो है।", ["यह एक है।", "दो है।"]),
        ("ما هذا؟ لا شيء.", ["ما هذا؟", "لا شيء."]),
        ("a title\n\na line", ["a title", "a line"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences_end_at_their_marks(text, sentences):
    assert [text[start:end] for start, end in split_sentences(text)] == sentences


@given(st.text(alphabet=st.sampled_from('ab .!?。！\n\u3000)"é👍🏽\u202e')) | st.text())
def test_every_character_is_in_one_sentence(text):
    covered = [index for start, end in split_sentences(text) for index in range(start, end)]
    assert covered == sorted(set(covered))
    assert all(text[index].isspace() for index in set(range(len(text))) - set(covered))
    assert all(
        start < end and not text[start].isspace() and not text[end - 1].isspace()
        for start, end in split_sentences(text)
    )
