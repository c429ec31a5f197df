"""Losses of every head against `transformers`: kinds of labels, labels that are ignored, and what is remembered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.parity.oracle import (
    CLASSES,
    TOLERANCE,
    assert_equal,
    assert_equal_outputs,
    each_family,
    few,
    inputs,
    is_meaningful,
    make_pair,
    pairs,
    random_ids,
    random_labels,
)

WITH_LOSS = [name for name in CLASSES if not name.endswith("Model")]


@pytest.mark.parametrize("name", WITH_LOSS)
@given(data=st.data())
@few(max_examples=10)
@torch.no_grad()
def test_loss_equals_hugging_face(name, data):
    pair = data.draw(pairs(name))
    given = data.draw(inputs(pair, min_length=2))
    given |= random_labels(pair, given)
    found, expected = pair.ours(**given, use_cache=False), pair.theirs(**given, use_cache=False)
    assert_equal_outputs(found, expected, rows=is_meaningful(pair, given))


def losses_of(pair, labels: torch.Tensor) -> None:
    ids = random_ids(pair, len(labels), 6)
    assert_equal(pair.ours(ids, labels=labels).loss, pair.theirs(ids, labels=labels).loss, "loss")


@each_family
@pytest.mark.parametrize(
    ("n_labels", "labels", "kind"),
    [
        (1, torch.tensor([0.5, -1.0, 2.0]), "regression"),
        (1, torch.tensor([[0.5], [-1.0], [2.0]]), "regression"),
        (3, torch.tensor([0, 2, 1]), "single_label_classification"),
        (3, torch.tensor([0, 2, 1], dtype=torch.int32), "single_label_classification"),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]]), "multi_label_classification"),
    ],
)
@torch.no_grad()
def test_problem_type_is_inferred_from_the_first_labels_and_stays(family, n_labels, labels, kind):
    pair = make_pair(f"{family}ForSequenceClassification", num_labels=n_labels)
    if labels.dtype == torch.int32:
        # torch's cross-entropy takes int64 only: the type counts for the inference, in both.
        for model in (pair.ours, pair.theirs):
            with pytest.raises(RuntimeError, match="Long"):
                model(random_ids(pair, 3, 6), labels=labels)
    else:
        losses_of(pair, labels)
    assert pair.ours.config.problem_type == pair.theirs.config.problem_type == kind
    if kind == "single_label_classification":
        # Three floats a row would be several labels now, were it not for the first call.
        for model in (pair.ours, pair.theirs):
            with pytest.raises((RuntimeError, ValueError)):
                model(random_ids(pair, 2, 6), labels=torch.rand(2, 3))


@each_family
@pytest.mark.parametrize(
    ("kind", "n_labels", "labels"),
    [
        ("regression", 1, torch.randn(4)),
        ("regression", 3, torch.randn(4, 3)),
        ("regression", 3, torch.randn(1, 3)),
        ("single_label_classification", 3, torch.tensor([2, -100, 0])),
        ("single_label_classification", 2, torch.tensor([[1], [0]])),
        ("multi_label_classification", 1, torch.tensor([[1.0], [0.0]])),
        ("multi_label_classification", 3, torch.rand(2, 3)),
    ],
)
@torch.no_grad()
def test_explicit_problem_types(family, kind, n_labels, labels):
    pair = make_pair(f"{family}ForSequenceClassification", num_labels=n_labels, problem_type=kind)
    losses_of(pair, labels)
    assert pair.ours.config.problem_type == kind


@each_family
def test_an_unknown_problem_type_is_refused(family):
    config = make_pair(f"{family}Model").config
    with pytest.raises(ValueError, match="not one of regression, single_label_classification"):
        type(config)(problem_type="ranking")


@pytest.mark.parametrize("name", [name for name in WITH_LOSS if name.endswith(("MaskedLM", "TokenClassification"))])
@torch.no_grad()
def test_labels_of_minus_100_count_for_nothing(name):
    pair = make_pair(name)
    ids = random_ids(pair, 3, 7)
    labels = torch.full((3, 7), -100)
    labels[1, 2], labels[2, 6] = 1, 2
    losses_before = pair.ours(ids, labels=labels)
    assert_equal_outputs(losses_before, pair.theirs(ids, labels=labels))
    logits = losses_before.logits.log_softmax(-1)
    assert_equal(losses_before.loss, -(logits[1, 2, 1] + logits[2, 6, 2]) / 2, "loss by hand")


@each_family
@torch.no_grad()
def test_a_causal_model_is_asked_for_the_next_token(family):
    pair = make_pair(f"{family}ForCausalLM", is_decoder=True)
    ids = random_ids(pair, 2, 6)
    labels = ids.clone()
    labels[0, :4] = -100
    found = pair.ours(ids, labels=labels)
    assert_equal(found.loss, pair.theirs(ids, labels=labels).loss, "loss")
    logits = found.logits.log_softmax(-1)
    asked = [(0, 4), (0, 5), *((1, position) for position in range(1, 6))]
    by_hand = -sum(logits[row, position - 1, ids[row, position]] for row, position in asked) / len(asked)
    assert_equal(found.loss, by_hand, "loss by hand")


@each_family
@torch.no_grad()
def test_answers_outside_of_the_row_count_for_nothing(family):
    pair = make_pair(f"{family}ForQuestionAnswering")
    ids = random_ids(pair, 4, 7)
    start, end = torch.tensor([2, 7, 90, -4]), torch.tensor([[3], [50], [6], [0]])
    expected = pair.theirs(ids, start_positions=start.clone(), end_positions=end.clone())
    before = start.clone(), end.clone()
    found = pair.ours(ids, start_positions=start, end_positions=end)
    assert_equal_outputs(found, expected)
    assert torch.equal(start, before[0])
    assert torch.equal(end, before[1])
    for only in ({"start_positions": start}, {"end_positions": end.squeeze()}):
        assert "loss" not in pair.ours(ids, **only)
        assert "loss" not in pair.theirs(ids, **only)


@each_family
@torch.no_grad()
def test_multiple_choice_compares_the_choices_of_a_row(family):
    pair = make_pair(f"{family}ForMultipleChoice")
    ids, labels = random_ids(pair, 3, 4, 5), torch.tensor([3, 0, 2])
    found = pair.ours(ids, labels=labels)
    assert found.logits.shape == (3, 4)
    assert_equal_outputs(found, pair.theirs(ids, labels=labels))
    by_hand = -found.logits.log_softmax(-1)[torch.arange(3), labels].mean()
    assert_equal(found.loss, by_hand, "loss by hand", TOLERANCE)
