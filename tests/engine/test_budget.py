"""The token budget by shape and memory."""

from __future__ import annotations

import torch

from rembert_ray.engine.budget import CPU_BATCH_TOKENS, choose_batch_tokens, fit_gpu
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.encoder import Encoder

GIB = 1024**3


def test_a_large_gpu_gets_two_whole_waves():
    assert fit_gpu(RemBertConfig(), 139 * GIB, 132) == 2 * 132 * 128


def test_a_small_gpu_gets_what_fits_in_whole_tiles():
    found = fit_gpu(RemBertConfig(), GIB // 2, 132)
    assert 128 <= found < 2 * 132 * 128
    assert found % 128 == 0
    assert found * 4 * (2 * 1152 + 2 * 4608) < GIB // 4
    assert fit_gpu(RemBertConfig(), 0, 132) == 128


def test_the_cpu_has_one_budget():
    encoder = Encoder(RemBertConfig(vocab_size=9, num_hidden_layers=1))
    assert choose_batch_tokens(encoder, torch.device("cpu")) == CPU_BATCH_TOKENS
