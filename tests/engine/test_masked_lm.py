"""Pseudo-log-likelihoods of windows against a loop over plain tensors, with a toy encoder in which context counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rembert_ray.engine import masked_lm
from rembert_ray.engine.masked_lm import PseudoLikelihood, logits_in_pieces, mask_each
from rembert_ray.engine.packing import WindowTable
from rembert_ray.ragged import splits

N_IDS, MASK = 11, 10


class Mixer(nn.Module):
    """Each token's vector and the mean of its window's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(N_IDS, 8)

    def encode(self, input_ids, token_type_ids, layout):
        if (input_ids == 9).any():
            raise ValueError("nine")
        vectors = self.table(input_ids)
        parts = vectors.split(layout.cu_seqlens.diff().tolist())
        return torch.cat([part + part.mean(0) * torch.arange(1, len(part) + 1)[:, None] for part in parts])


@pytest.fixture
def models():
    torch.manual_seed(2)
    return Mixer().eval(), nn.Linear(8, N_IDS).eval()


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
    monkeypatch.setattr(masked_lm, "LOGITS_BYTES", 3 * 4 * N_IDS)
    result = PseudoLikelihood(*models, N_IDS, MASK, torch.device("cpu"), 6).run(windows(ROWS, KEPT))
    with torch.inference_mode():
        wanted = [expected(*models, row, place) for row, places in zip(ROWS, KEPT, strict=True) for place in places]
    np.testing.assert_allclose(result.values["log_probability"], wanted, atol=1e-5)
    assert result.facts.n_windows == 9
    assert result.facts.n_tokens == 3 * 4 + 4 + 2 * 2 + 3 * 4


def test_equal_masked_windows_are_computed_once_whatever_they_hide(models):
    result = PseudoLikelihood(*models, N_IDS, MASK, torch.device("cpu"), 6).run(windows(ROWS, KEPT))
    # [1, MASK, 3, 0] hides 2 in the first window and 4 in the second; the fourth window is the first.
    assert result.facts.n_windows_computed == 3 + 2
    first, second = result.values["log_probability"][[1, 3]]
    assert first != second


def test_a_window_that_fails_is_named(models):
    result = PseudoLikelihood(*models, N_IDS, MASK, torch.device("cpu"), 100).run(windows([[1, 2], [9, 1]], [[0], [1]]))
    assert result.failures == {1: "ValueError: nine"}


@pytest.mark.parametrize("table", [windows([], []), windows([[1, 2]], [[]])])
def test_nothing_to_score(models, table):
    result = PseudoLikelihood(*models, N_IDS, MASK, torch.device("cpu"), 6).run(table)
    assert result.values["log_probability"].shape == (0,)
    assert result.facts.n_windows == 0


def test_masked_copies():
    table, hidden_ids = mask_each(windows(ROWS, KEPT), np.array([0, 0, 2]), np.array([0, 2, 1]), MASK)
    assert table.ids.tolist() == [10, 2, 3, 0, 1, 2, 10, 0, 5, 10]
    assert hidden_ids.tolist() == [1, 3, 6]
    assert (table.kept.tolist(), table.kept_splits.tolist()) == ([0, 2, 1], [0, 1, 2, 3])


def test_logits_come_few_rows_at_a_time(models, monkeypatch):
    monkeypatch.setattr(masked_lm, "LOGITS_BYTES", 3 * 4 * N_IDS)
    pieces = list(logits_in_pieces(models[1], torch.randn(7, 8), N_IDS))
    assert [tuple(piece.shape) for piece in pieces] == [(3, N_IDS), (3, N_IDS), (1, N_IDS)]
