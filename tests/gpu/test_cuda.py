"""The same runner on a GPU: what it gives there against the CPU, whatever the token budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rembert_ray.engine.packing import WindowTable, splits
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.rembert import RemBertModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here")


class KeptTokens:
    token_values = ("vector",)

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
