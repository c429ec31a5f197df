"""A row has the same bits whatever its batch mates: on CPU, with the prepacked layers of a job.

oneDNN adds in the same order for every number of rows but one, and attention for every number of queries from four on;
`PrepackedLinear` and `NarrowedLayout` never ask for less. That is so on AMD's Zen 4; the libraries choose their kernels
by the processor, so elsewhere a difference is reported and no failure.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import PrepackedLinear, prepack_linears
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.heads import Pooler
from rembert_ray.ragged import splits
from rembert_ray.tasks.embed import EmbedHead

CPU = torch.device("cpu")
INFO = Path("/proc/cpuinfo")
# Zen 3 is of the same family, without AVX-512.
IS_KNOWN = INFO.exists() and all(words in INFO.read_text() for words in ("cpu family\t: 25", "avx512f"))
pytestmark = pytest.mark.xfail(not IS_KNOWN, reason="bits were compared on AMD's Zen 4 only", strict=False)
# RemBERT's width: other widths may take other kernels.
SIZES = {"vocab_size": 100, "num_hidden_layers": 2, "hidden_size": 1152, "intermediate_size": 4608}
HEADS = 18
BUDGETS = (1, 16, 150, 700, 10_000)


class KeptOfAll:
    """Kept tokens after a whole last layer."""

    token_values = frozenset({"hidden"})
    reads = "all"

    def reduce(self, hidden, batch):
        return {"hidden": hidden[batch.kept].float()}


class KeptAlone(KeptOfAll):
    """Kept tokens after a last layer of their own."""

    reads = "kept"

    def reduce(self, hidden, batch):
        return {"hidden": hidden.float()}


@pytest.fixture(scope="module")
def table() -> WindowTable:
    """Windows with one, some or all of their tokens kept; several of some lengths, one of others."""
    random = np.random.default_rng(4)
    lengths = np.array([3, 3, 4, 5, 7, 7, 7, 16, 16, 17, 31, 33, 64, 90, 200, 301])
    ids = random.integers(5, 100, lengths.sum()).astype(np.int32)
    ends = np.minimum(lengths, random.integers(1, 5, len(lengths)))
    return WindowTable.from_ranges(ids, splits(lengths), np.zeros_like(lengths), ends)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request) -> torch.dtype:
    if request.param == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16 products")
    return request.param


@pytest.fixture(scope="module", params=[RemBertConfig, RobertaPreLayerNormConfig], ids=lambda kind: kind.model_type)
def encoder(request, dtype) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(request.param(num_attention_heads=HEADS, **SIZES)).eval().to(dtype)
    assert prepack_linears(encoder)
    return encoder


def run(encoder, head, budget, table):
    return Runner(encoder, head, CPU, budget).run(table).values


@pytest.mark.parametrize("head", [KeptOfAll(), KeptAlone(), EmbedHead("mean", None), EmbedHead("cls", None)])
def test_every_budget_gives_the_same_bits(encoder, head, table):
    alone = run(encoder, head, 1, table)
    for budget in BUDGETS[1:]:
        for name, values in run(encoder, head, budget, table).items():
            np.testing.assert_array_equal(values, alone[name], err_msg=f"{name} at {budget} tokens")


def test_other_windows_give_the_same_bits(encoder, table):
    whole = run(encoder, EmbedHead("mean", None), 1000, table)["vector"]
    some = np.array([12, 1, 5])
    np.testing.assert_array_equal(run(encoder, EmbedHead("mean", None), 1000, table.take(some))["vector"], whole[some])


@torch.inference_mode()
def test_one_row_of_a_product_has_the_bits_of_many(dtype):
    torch.manual_seed(0)
    linear = PrepackedLinear(torch.nn.Linear(1152, 4608, dtype=dtype), with_gelu=True)
    down = PrepackedLinear(torch.nn.Linear(4608, 1152, dtype=dtype))
    x, residual = torch.randn(40, 1152, dtype=dtype), torch.randn(40, 1152, dtype=dtype)
    inner = linear(x)
    both = down.add(residual, inner)
    for n_rows in (1, 2, 3, 17):
        np.testing.assert_array_equal(linear(x[:n_rows]).float(), inner[:n_rows].float())
        np.testing.assert_array_equal(down.add(residual[:n_rows], inner[:n_rows]).float(), both[:n_rows].float())
    np.testing.assert_array_equal(linear(x[0]).float(), inner[0].float())


@torch.inference_mode()
def test_a_pooler_has_the_same_bits_for_one_window(dtype):
    torch.manual_seed(0)
    pooler = Pooler(RemBertConfig(num_attention_heads=HEADS, **SIZES)).to(dtype)
    prepack_linears(pooler)
    first = torch.randn(50, 1152, dtype=dtype)
    np.testing.assert_array_equal(pooler(first[:1]).float(), pooler(first)[:1].float())
