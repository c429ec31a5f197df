"""Entities of tagged words, against seqeval's `get_entities` (1.2.2), whose end is the last word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.evaluation.word_tags import are_plain, entities_of, without_prefixes


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("I-PER I-PER O I-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER I-PER", {("PER", 0, 1), ("PER", 1, 3)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("B-PER I-PER E-PER I-PER S-PER", {("PER", 0, 3), ("PER", 3, 4), ("PER", 4, 5)}),
        ("B-PER L-PER U-LOC", {("PER", 0, 2), ("LOC", 2, 3)}),
        ("B-WORK-OF-ART I-WORK-OF-ART", {("WORK-OF-ART", 0, 2)}),
        # Parts of speech: every word for itself. A model's own names may begin with any letter.
        ("NOUN NOUN O SCONJ", {("NOUN", 0, 1), ("NOUN", 1, 2), ("SCONJ", 3, 4)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_entities_are_those_of_seqeval(tags, entities):
    assert entities_of(tags.split()) == entities


def test_a_word_without_a_tag_ends_an_entity():
    assert entities_of(["B-PER", None, "I-PER"]) == {("PER", 0, 1), ("PER", 2, 3)}


TAGS = st.sampled_from(["O", None, "NOUN", *(f"{prefix}-{kind}" for prefix in "BIESLU" for kind in ("PER", "LOC"))])


@given(st.lists(TAGS, max_size=12))
def test_entities_cover_exactly_the_words_that_are_not_outside_and_never_overlap(tags):
    entities = entities_of(tags)
    covered = [place for _, start, end in entities for place in range(start, end)]
    assert sorted(covered) == [place for place, tag in enumerate(tags) if tag not in (None, "O")]
    for kind, start, end in entities:
        assert all(tag == kind or tag[2:] == kind for tag in tags[start:end])


def test_parts_of_speech_are_plain_and_prefixes_come_off():
    assert are_plain(["NOUN", "O", None])
    assert not are_plain(["NOUN", "B-PER"])
    assert not are_plain(["O", None])
    assert without_prefixes(["B-NOUN", "I-VERB", "SCONJ", "O", None]) == ["NOUN", "VERB", "SCONJ", "O", None]
