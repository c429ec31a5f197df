"""The runner against the model row by row, and what it does when a device or a row fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.ragged import splits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    config = RemBertConfig(
        vocab_size=60,
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        input_embedding_size=16,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return RemBertModel(config, add_pooling_layer=False).encoder.eval()


class KeptTokens:
    token_values = ("vector",)
    reads = "all"

    def reduce(self, hidden, batch):
        return {"vector": hidden[batch.kept]}


class FirstTokens:
    token_values = ()
    reads = "first"

    def reduce(self, hidden, batch):
        return {"vector": hidden}


class FewTokens:
    token_values = ("vector",)
    reads = "kept"

    def reduce(self, hidden, batch):
        return {"vector": hidden}


class Watched:
    """The real encoder; notes the tokens of each call and fails when told to."""

    def __init__(self, model, fail=lambda ids: None):
        self.model, self.fail, self.sizes = model, fail, []

    def encode(self, ids, *arguments, narrowed):
        self.fail(ids)
        self.sizes.append(len(ids))
        return self.model.encode(ids, *arguments, narrowed=narrowed)


def random_table(n_windows=40, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 50, n_windows)
    ids = random.integers(1, 60, lengths.sum()).astype(np.int32)
    return WindowTable.from_ranges(ids, splits(lengths), np.ones(n_windows, np.int32), (lengths - 1).astype(np.int32))


def vectors_one_by_one(model, table):
    rows = []
    with torch.inference_mode():
        for start, length in zip(table.starts, table.lengths, strict=False):
            ids = torch.from_numpy(table.ids[start : start + length].astype(np.int64))
            layout = PackedLayout.from_lengths([int(length)], CPU)
            rows.append(model.encode(ids, torch.zeros_like(ids), layout).numpy())
    return rows


@pytest.mark.parametrize("budget", [1, 64, 300, 100_000])
def test_results_are_in_the_order_of_the_windows_whatever_the_budget(model, budget):
    table = random_table()
    expected = vectors_one_by_one(model, table)
    tokens = Runner(model, KeptTokens(), CPU, budget).run(table)
    kept = np.concatenate([row[1:-1] for row in expected])
    np.testing.assert_allclose(tokens.values["vector"], kept, atol=1e-5)
    few = Runner(model, FewTokens(), CPU, budget).run(table)
    np.testing.assert_allclose(few.values["vector"], kept, atol=1e-5)
    windows = Runner(model, FirstTokens(), CPU, budget).run(table)
    np.testing.assert_allclose(windows.values["vector"], np.stack([row[0] for row in expected]), atol=1e-5)
    assert windows.facts.n_tokens == windows.facts.n_tokens_computed == len(table.ids)
    assert windows.failures == {}


def test_equal_windows_are_computed_once_and_all_get_the_result(model):
    once = random_table(10)
    twice = once.take(np.array([3, 0, 3, 9, 0, 3]))
    watched = Watched(model)
    result = Runner(watched, KeptTokens(), CPU).run(twice)
    expected = vectors_one_by_one(model, twice)
    np.testing.assert_allclose(result.values["vector"], np.concatenate([r[1:-1] for r in expected]), atol=1e-5)
    assert result.facts.n_windows_computed == 3
    assert sum(watched.sizes) == result.facts.n_tokens_computed == once.lengths[[3, 0, 9]].sum()


def test_out_of_memory_halves_the_budget_and_loses_nothing(model):
    def fail(ids):
        if len(ids) > 120:
            raise torch.OutOfMemoryError("no memory")

    table = random_table()
    watched = Watched(model, fail)
    runner = Runner(watched, KeptTokens(), CPU, 1000)
    result = runner.run(table)
    expected = np.concatenate([row[1:-1] for row in vectors_one_by_one(model, table)])
    np.testing.assert_allclose(result.values["vector"], expected, atol=1e-5)
    assert runner.batch_tokens <= 120
    assert sum(watched.sizes) == len(table.ids)


def test_out_of_memory_on_a_single_window_is_raised(model):
    def fail(ids):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        Runner(Watched(model, fail), KeptTokens(), CPU).run(random_table())


def test_a_window_that_fails_is_named_and_the_others_are_right(model):
    table = random_table()
    poison = 17
    table.ids[table.starts[poison] + 1] = 59
    others = table.ids == 59
    others[table.starts[poison] + 1] = False
    table.ids[others] = 58

    def fail(ids):
        if (ids == 59).any():
            raise RuntimeError("poison\nsecond line")

    result = Runner(Watched(model, fail), FirstTokens(), CPU, 400).run(table)
    assert result.failures == {poison: "RuntimeError: poison"}
    expected = np.stack([row[0] for row in vectors_one_by_one(model, table)])
    expected[poison] = 0
    np.testing.assert_allclose(result.values["vector"], expected, atol=1e-5)


def test_a_broken_device_ends_the_run(model):
    def fail(ids):
        raise torch.AcceleratorError("device-side assert")

    with pytest.raises(torch.AcceleratorError):
        Runner(Watched(model, fail), KeptTokens(), CPU).run(random_table())
