"""Each measure on a few rows worked out by hand, and what holds for any rows: bounds, order, parts."""

from __future__ import annotations

from itertools import chain

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.evaluation.label_columns import TYPES, MismatchError
from rembert_ray.evaluation.label_measures import Entities, MultiLabel, SingleLabel, WordTags
from rembert_ray.evaluation.measures import Accuracy, Answers, Fills, Regression

TEXT, TEXTS, FILLS = pa.string(), pa.list_(pa.string()), pa.list_(pa.list_(pa.string()))


def measured(measure, predictions, labels, kind, label_kind=None):
    measure.add(pa.array(predictions, kind), pa.array(labels, label_kind or kind))
    return measure.metrics()


def entity(group, start, end):
    return {"entity_group": group, "start": start, "end": end}


def test_one_label_a_row():
    measure = SingleLabel()
    found = measured(measure, ["a", "a", "b", None], ["a", "b", "b", "b"], TEXT)
    # a: 1 of 2 predicted, 1 of 1 found; b: 1 of 1 predicted, 1 of 3 found.
    assert found == pytest.approx({"accuracy": 0.5, "precision": 0.75, "recall": 2 / 3, "f1": (2 / 3 + 0.5) / 2})
    assert measure.per_label()["b"] == pytest.approx({"precision": 1, "recall": 1 / 3, "f1": 0.5, "number": 3})


def test_several_labels_a_row():
    found = measured(MultiLabel(), [["a"], ["b", "a"], [], None], [["a"], ["a", "c"], [], []], TEXTS)
    # An error is wrong even where there was nothing to find.
    assert found == pytest.approx({"exact_match": 0.5, "f1_micro": 2 * 2 / (3 + 3), "f1_macro": 1 / 3})


def test_numbers_leave_errors_out():
    found = measured(Regression(), [1.0, None, 3.0, 2.0], [1.0, 9.0, 5.0, 3.0], pa.float64())
    assert found == pytest.approx({"mse": 5 / 3, "mae": 1.0, "pearson": 1.0, "spearman": 1.0})
    assert measured(Regression(), [], [], pa.float64()) == dict.fromkeys(("mse", "mae", "pearson", "spearman"))


def test_choices():
    assert measured(Accuracy(), [0, 1, None, 2], [0, 0, 0, 2], pa.int64()) == {"accuracy": 0.5}


def test_answers_are_in_per_cent_and_an_error_is_wrong_even_where_there_is_no_answer():
    labels = [["Denver Broncos"], [], ["Denver Broncos"], [], ["x"]]
    found = measured(Answers(), ["the Broncos", "", None, None, "X!"], labels, TEXT, TEXTS)
    assert found == pytest.approx({"exact_match": 40.0, "f1": 100 * (2 / 3 + 1 + 1) / 5})


def test_fills_count_each_mask_and_no_white_space():
    predictions = [[["x", " y"], ["b", "a"]], [["c", "d"]], None]
    labels = [["y ", "b"], ["e"], ["f", None]]
    assert measured(Fills(2), predictions, labels, FILLS, TEXTS) == {"accuracy": 0.25, "accuracy@2": 0.5}
    assert [*measured(Fills(1), predictions, labels, FILLS, TEXTS)] == ["accuracy"]


def test_masks_that_were_not_read_are_wrong_and_other_differences_an_error():
    assert measured(Fills(1), [[["a"], None]], [["a", "b"]], FILLS, TEXTS) == {"accuracy": 0.5}
    for fills in ([["a"]], [["a"], ["b"], ["c"]], [["a"], ["b"], ["c"], None]):
        with pytest.raises(MismatchError, match="2 label"):
            Fills(1).add(pa.array([fills], FILLS), pa.array([["a", "b"]], TEXTS))


def test_entities_are_right_in_type_and_both_ends():
    gold = [[entity("PER", 0, 4), entity("LOC", 9, 12)], [entity("PER", 0, 2)]]
    predictions = [[entity("PER", 0, 4), entity("PER", 9, 12), entity("LOC", 9, 11)], None]
    measure = Entities()
    found = measured(measure, predictions, gold, TYPES["entities"])
    assert found == pytest.approx({"overall_precision": 1 / 3, "overall_recall": 1 / 3, "overall_f1": 1 / 3})
    assert measure.per_label()["PER"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "number": 2}


def test_tags_of_words():
    gold = [["B-PER", "I-PER", "O", "O"], ["B-LOC", None, "O"], ["O", "B-LOC"]]
    predictions = [["B-PER", "I-PER", "B-LOC", None], ["B-LOC", "I-LOC", "O"], None]
    found = measured(WordTags(), predictions, gold, TEXTS)
    assert found == pytest.approx(
        {"overall_precision": 2 / 3, "overall_recall": 2 / 3, "overall_f1": 2 / 3, "overall_accuracy": 4 / 8}
    )


def test_parts_of_speech_do_not_see_the_prefixes_of_a_model_that_tags_pieces():
    found = measured(WordTags(), [["B-NOUN", "I-NOUN", "B-VERB", "O"]], [["NOUN", "NOUN", "ADJ", "PUNCT"]], TEXTS)
    assert found["overall_accuracy"] == 0.5
    assert (found["overall_precision"], found["overall_recall"]) == pytest.approx((2 / 3, 0.5))


def test_a_tag_for_each_word_or_an_error():
    with pytest.raises(MismatchError, match=r"1 label\(s\) for 2 word\(s\)"):
        WordTags().add(pa.array([["O", "O"]], TEXTS), pa.array([["O"]], TEXTS))


WORD = st.sampled_from("abc")
SETS = st.lists(WORD, max_size=3, unique=True)
TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "NOUN"]), min_size=2, max_size=2)
SPANS = st.lists(st.builds(entity, WORD, st.integers(0, 2), st.integers(3, 5)), max_size=3)
KINDS = {
    "single": (SingleLabel, TEXT, TEXT, WORD, WORD),
    "multi": (MultiLabel, TEXTS, TEXTS, SETS, SETS),
    "choice": (Accuracy, TEXT, TEXT, WORD, WORD),
    "answer": (Answers, TEXT, TEXTS, WORD, SETS),
    "fills": (lambda: Fills(3), FILLS, TEXTS, st.tuples(SETS).map(list), st.tuples(WORD).map(list)),
    "entities": (Entities, TYPES["entities"], TYPES["entities"], SPANS, SPANS),
    "tags": (WordTags, TEXTS, TEXTS, TAGS, TAGS),
    "numbers": (Regression, pa.float64(), pa.float64(), st.integers(-5, 5), st.integers(-5, 5)),
}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_order_and_any_cut_give_the_same_metrics_within_bounds(name, data):
    make, kind, label_kind, prediction, label = KINDS[name]
    rows = data.draw(st.lists(st.tuples(st.none() | prediction, label), max_size=8))
    whole, parts = make(), make()
    whole.add(pa.array([p for p, _ in rows], kind), pa.array([g for _, g in rows], label_kind))
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    for piece in (shuffled[:cut], shuffled[cut:]):
        part = make()
        part.add(pa.array([p for p, _ in piece], kind), pa.array([g for _, g in piece], label_kind))
        parts.merge(part)
    assert parts.metrics() == pytest.approx(whole.metrics(), abs=1e-9)
    assert parts.per_label() == whole.per_label()
    if name != "numbers":
        top = 100 if name == "answer" else 1
        assert all(value is None or 0 <= value <= top + 1e-9 for value in whole.metrics().values())


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_what_equals_the_labels_is_perfect(name, data):
    make, kind, label_kind, _, label = KINDS[name]
    labels = data.draw(st.lists(label.filter(bool) if name != "numbers" else label, min_size=1, max_size=8))
    answers = {"answer": lambda gold: gold[0], "fills": lambda gold: [[word] for word in gold]}
    measure = make()
    measure.add(
        pa.array([answers.get(name, lambda gold: gold)(one) for one in labels], kind), pa.array(labels, label_kind)
    )
    if name == "answer" and any("a" in gold for gold in labels):
        return  # An English article: it matches, without a word in common.
    perfect = {"answer": 100, "numbers": 0}.get(name, 1)
    for metric, value in measure.metrics().items():
        has_nothing = name == "tags" and set(chain(*labels)) == {"O"} and metric != "overall_accuracy"
        if metric in ("pearson", "spearman"):
            assert value is None or value == pytest.approx(1)
        else:
            assert value == pytest.approx(0 if has_nothing else perfect)
