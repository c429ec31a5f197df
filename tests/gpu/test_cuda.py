"""The same runner on a GPU: what it gives there against the CPU, whatever the token budget."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rembert_ray.engine.packing import WindowTable, splits
from rembert_ray.engine.precision import use_fast_layers
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.rembert import RemBertModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here")


class KeptTokens:
    token_values = ("vector",)
    reads = "all"

    def reduce(self, hidden, batch):
        return {"vector": hidden[batch.kept].float()}


def random_table(n_windows: int) -> WindowTable:
    random = np.random.default_rng(0)
    lengths = random.integers(2, 200, n_windows)
    ids = random.integers(1, 500, lengths.sum()).astype(np.int32)
    return WindowTable.from_ranges(ids, splits(lengths), np.zeros(n_windows, np.int32), lengths.astype(np.int32))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = RemBertConfig(
        vocab_size=500,
        hidden_size=128,
        num_attention_heads=2,
        num_hidden_layers=3,
        input_embedding_size=64,
        intermediate_size=256,
        initializer_range=0.05,
    )
    return RemBertModel(config, add_pooling_layer=False).encoder.eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packed_on_the_gpu_is_close_to_float32_on_the_cpu(model, dtype):
    table = random_table(100)
    expected = Runner(model.to("cpu", torch.float32), KeptTokens(), torch.device("cpu")).run(table).values["vector"]
    device = torch.device("cuda")
    found = Runner(model.to(device, dtype), KeptTokens(), device).run(table).values["vector"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (0.03 if dtype == torch.bfloat16 else 0.005)


def test_the_budget_does_not_change_the_result(model):
    table, device = random_table(100), torch.device("cuda")
    runner = Runner(model.to(device, torch.bfloat16), KeptTokens(), device, batch_tokens=4096)
    whole = runner.run(table).values["vector"]
    other = Runner(runner.encoder, KeptTokens(), device, batch_tokens=1024).run(table).values["vector"]
    np.testing.assert_allclose(whole, other, atol=0.05)


class FewTokens(KeptTokens):
    reads = "kept"

    def reduce(self, hidden, batch):
        return {"vector": hidden.float()}


def test_a_last_layer_for_few_tokens_gives_what_the_whole_one_gives(model):
    table, device = random_table(60), torch.device("cuda")
    encoder = model.to(device, torch.bfloat16)
    whole = Runner(encoder, KeptTokens(), device).run(table).values["vector"]
    np.testing.assert_allclose(Runner(encoder, FewTokens(), device).run(table).values["vector"], whole, atol=0.05)


def test_windows_in_batches_of_their_own_have_the_same_bits_whatever_the_others(model):
    table, device = random_table(40), torch.device("cuda")
    runner = Runner(model.to(device, torch.bfloat16), KeptTokens(), device, batch_tokens=1)
    whole = runner.run(table).values["vector"]
    some = np.array([7, 3, 30])
    kept = np.concatenate([np.arange(*table.kept_splits[[window, window + 1]]) for window in some])
    np.testing.assert_array_equal(runner.run(table.take(some)).values["vector"], whole[kept])


@pytest.mark.parametrize("precision", ["bfloat16", "float8"])
def test_fast_layers_are_close_to_plain_ones(model, precision):
    if precision == "float8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no float8 products")
    table, device = random_table(60), torch.device("cuda")
    plain = model.to(device, torch.bfloat16)
    expected = Runner(plain, KeptTokens(), device).run(table).values["vector"]
    fast = copy.deepcopy(plain)
    use_fast_layers(fast, precision)
    found = Runner(fast, KeptTokens(), device).run(table).values["vector"]
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > (0.99 if precision == "float8" else 0.999)
