"""Fills and pseudo-log-likelihoods against a loop over plain tensors, with a toy encoder in which context counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rembert_ray.engine import masked_lm
from rembert_ray.engine.masked_lm import MaskFiller, PseudoLikelihood, mask_each
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.vocabulary import SlicedVocabulary
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.heads import LanguageModelHead
from rembert_ray.ragged import splits

N_IDS, MASK = 11, 10


class Mixer(nn.Module):
    """Each token's vector and the mean of its window's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(N_IDS, 8)

    def encode(self, input_ids, token_type_ids, layout, *, narrowed):
        if (input_ids == 9).any():
            raise ValueError("nine")
        vectors = self.table(input_ids)
        parts = vectors.split(layout.cu_seqlens.diff().tolist())
        mixed = [part + part.mean(0) * torch.arange(1, len(part) + 1)[:, None] for part in parts]
        return torch.cat(mixed)[narrowed.rows]


@pytest.fixture
def models():
    torch.manual_seed(2)
    sizes = {"vocab_size": N_IDS, "hidden_size": 8, "num_attention_heads": 2, "output_embedding_size": 6}
    return Mixer().eval(), LanguageModelHead(RemBertConfig(**sizes)).requires_grad_(False).eval()


def score(models, table, batch_tokens=6):
    encoder, head = models
    return PseudoLikelihood(encoder, SlicedVocabulary(head), MASK, torch.device("cpu"), batch_tokens).run(table)


def fill(models, table, top_k=3, targets=None, batch_tokens=6):
    encoder, head = models
    vocabulary = SlicedVocabulary(head)
    return MaskFiller(encoder, vocabulary, top_k, targets, torch.device("cpu"), batch_tokens).run(table)


def windows(rows, kept):
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    lengths = [len(row) for row in rows]
    kept_ids = np.array([place for places in kept for place in places], dtype=np.int32)
    return WindowTable(ids, splits(lengths), np.array(lengths, np.int32), kept_ids, splits([len(k) for k in kept]))


def expected(encoder, head, row, place):
    ids = torch.tensor(row)
    ids[place] = MASK
    vectors = encoder.table(ids)
    hidden = vectors + vectors.mean(0) * torch.arange(1, len(row) + 1)[:, None]
    return head(hidden[place]).log_softmax(-1)[row[place]].item()


ROWS = [[1, 2, 3, 0], [1, 4, 3, 0], [5, 6], [1, 2, 3, 0], [7]]
KEPT = [[0, 1, 2], [1], [0, 1], [0, 1, 2], []]


@pytest.mark.parametrize("n_at_once", [1, 2, 100])
def test_each_kept_token_gets_its_log_probability(models, monkeypatch, n_at_once):
    monkeypatch.setattr(masked_lm, "MASKED_WINDOWS", n_at_once)
    result = score(models, windows(ROWS, KEPT))
    with torch.inference_mode():
        wanted = [expected(*models, row, place) for row, places in zip(ROWS, KEPT, strict=True) for place in places]
    np.testing.assert_allclose(result.values["log_probability"], wanted, atol=1e-5)
    assert result.facts.n_windows == 9
    assert result.facts.n_tokens == 3 * 4 + 4 + 2 * 2 + 3 * 4


def test_equal_masked_windows_are_computed_once_whatever_they_hide(models):
    result = score(models, windows(ROWS, KEPT))
    # [1, MASK, 3, 0] hides 2 in the first window and 4 in the second; the fourth window is the first.
    assert result.facts.n_windows_computed == 3 + 2
    first, second = result.values["log_probability"][[1, 3]]
    assert first != second


def test_a_window_that_fails_is_named(models):
    table = windows([[1, 2], [9, 1]], [[0], [1]])
    assert score(models, table, 100).failures == {1: "ValueError: nine"}
    assert fill(models, table, batch_tokens=100).failures == {1: "ValueError: nine"}


@pytest.mark.parametrize("table", [windows([], []), windows([[1, 2]], [[]])])
def test_nothing_to_score(models, table):
    result = score(models, table)
    assert result.values["log_probability"].shape == (0,)
    assert result.facts.n_windows == 0
    assert fill(models, table).values["token"].shape == (0, 3)


@pytest.mark.parametrize("n_at_once", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("targets", [None, [4, 0, 9]])
def test_each_kept_token_gets_its_best_tokens(models, monkeypatch, n_at_once, targets):
    monkeypatch.setattr(masked_lm, "KEPT_TOKENS", n_at_once)
    result = fill(models, windows(ROWS, KEPT), 5, targets)
    encoder, head = models
    place = 0
    for row, kept in zip(ROWS, KEPT, strict=True):
        vectors = encoder.table(torch.tensor(row))
        hidden = vectors + vectors.mean(0) * torch.arange(1, len(row) + 1)[:, None]
        for position in kept:
            probabilities = head(hidden[position]).softmax(-1)
            allowed = list(range(N_IDS)) if targets is None else targets
            best = sorted(allowed, key=lambda token, p=probabilities: -p[token].item())[:5]
            assert result.values["token"][place].tolist() == best
            np.testing.assert_allclose(result.values["score"][place], probabilities[best].detach(), atol=1e-6)
            place += 1
    assert place == len(result.values["token"])
    # The fourth window is the first, and the last one is computed although nothing is read of it.
    assert (result.facts.n_windows, result.facts.n_windows_computed) == (5, 4)


def test_a_window_that_fails_leaves_the_others_as_they_are(models, monkeypatch):
    monkeypatch.setattr(masked_lm, "KEPT_TOKENS", 1)
    rows, kept = [[1, 2], [9, 1], [3], [9, 1], [1, 2]], [[0], [1, 0], [0], [1, 0], [0]]
    result = fill(models, windows(rows, kept))
    assert set(result.failures) == {1, 3}
    good = fill(models, windows([rows[0], rows[2]], [kept[0], kept[2]])).values
    for name in ("score", "token"):
        np.testing.assert_array_equal(result.values[name][[0, 3, 6]], good[name][[0, 1, 0]])


def test_masked_copies():
    table, hidden_ids = mask_each(windows(ROWS, KEPT), np.array([0, 0, 2]), np.array([0, 2, 1]), MASK)
    assert table.ids.tolist() == [10, 2, 3, 0, 1, 2, 10, 0, 5, 10]
    assert hidden_ids.tolist() == [1, 3, 6]
    assert (table.kept.tolist(), table.kept_splits.tolist()) == ([0, 2, 1], [0, 1, 2, 3])
