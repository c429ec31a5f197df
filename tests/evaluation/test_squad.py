"""Exact match and F1 of answers, against the official SQuAD scripts' results for the same strings.

The official functions were also compared ad hoc over the four languages of XQuAD that the project has (19,040
predictions) and 5,000 random strings: no difference.
"""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.evaluation.squad import normalize_answer, score_answer


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("a  man, an\tapple\n", "man apple"),
        ("theatre of the absurd", "theatre of absurd"),
        ("x-y 3.14 'quoted'", "xy 314 quoted"),
        ("Ein  Mann", "ein mann"),
        ("«Was?»", "«was»"),
        ("二十五", "二十五"),
        ("İ", "i̇"),
        ("The.", ""),
    ],
)
def test_normalization_is_that_of_squad(text, normalized):
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("the Broncos", ["Denver Broncos", "broncos."], 1, 1),
        ("Denver Broncos team", ["Denver Broncos"], 0, 0.8),
        ("Panthers", ["Denver Broncos"], 0, 0),
        ("", ["Denver Broncos"], 0, 0),
        ("Broncos Broncos", ["Denver Broncos"], 0, 0.5),
        # SQuAD 1.1: two texts that are nothing after normalization match, and have no word in common.
        ("an", ["The"], 1, 0),
        # SQuAD 2.0: there is no answer.
        ("", [], 1, 1),
        ("the", [], 1, 1),
        ("Denver", [], 0, 0),
        ("", [""], 1, 1),
        ("Denver", ["", "Denver"], 1, 1),
    ],
)
def test_scores_are_those_of_squad(prediction, golds, exact, f1):
    assert score_answer(prediction, golds) == pytest.approx((exact, f1))


ANSWERS = st.text(alphabet="ab the,.é二\n ", max_size=12)


@given(ANSWERS, st.lists(ANSWERS, max_size=4), st.randoms())
def test_scores_are_bounded_and_the_order_of_gold_answers_does_not_matter(prediction, golds, random):
    exact, f1 = score_answer(prediction, golds)
    assert exact in (0, 1)
    assert 0 <= f1 <= 1
    shuffled = random.sample(golds, len(golds))
    assert score_answer(prediction, shuffled) == (exact, f1)
    if golds and all(golds):
        assert score_answer(golds[0], golds)[0] == 1


@given(st.text(max_size=30))
def test_normalization_is_idempotent_up_to_articles_it_makes_itself(text):
    normalized = normalize_answer(text)
    assert normalized == " ".join(normalized.split())
    assert not set(normalized) & set(string.punctuation)
    assert not {"a", "an", "the"} & set(normalized.split())
