"""Decoding on a GPU: what a step reads from the cache against the CPU, and rows that do not depend on their mates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rembert_ray.engine.decoding import Decoder
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.ragged_cache import DecodingLayout, RaggedCache, Span
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.rembert import RemBertForCausalLM
from rembert_ray.ragged import splits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; there is none here")

CONFIG = RemBertConfig(
    vocab_size=500,
    hidden_size=128,
    num_attention_heads=2,
    num_hidden_layers=2,
    input_embedding_size=64,
    output_embedding_size=96,
    intermediate_size=256,
    initializer_range=0.2,
    is_decoder=True,
    eos_token_id=[3, 4, 5],
)


def test_steps_and_prompts_are_close_to_the_cpu():
    torch.manual_seed(0)
    first_pass, second_pass = [Span(3, 6), Span(20, 17)], ([Span(3, 7), Span(20, 18)], [Span(50, 11)])
    inputs = torch.randn(23, 384), torch.randn(13, 384)
    found = {}
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        cache = RaggedCache(CONFIG, 64, torch.zeros(1, device=device, dtype=dtype))
        before = DecodingLayout.of(cache, [], first_pass, torch.device(device))
        before.attend(inputs[0].to(device, dtype), 2, 0.0, 1)
        layout = DecodingLayout.of(cache, *second_pass, torch.device(device))
        found[device] = layout.attend(inputs[1].to(device, dtype), 2, 0.0, 1).float().cpu()
    torch.testing.assert_close(found["cuda"], found["cpu"], atol=0.03, rtol=0.03)


def test_rows_that_join_and_leave_end_as_they_should():
    torch.manual_seed(0)
    device = torch.device("cuda")
    model = RemBertForCausalLM(CONFIG).eval().to(device, torch.bfloat16)
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, 100)
    none = np.zeros(len(lengths), np.int64)
    table = WindowTable.from_ranges(random.integers(1, 500, lengths.sum()), splits(lengths), none, none)
    options = GenerationOptions(max_new_tokens=12)
    whole = Decoder(model, options, 0, device).run(table)
    narrow = Decoder(model, options, 0, device, cache_tokens=300).run(table)
    assert not whole.failures
    # In bfloat16 a product with other rows beside it may round otherwise, and two tokens may be as good as equal.
    same = (whole.values["ids"] == narrow.values["ids"]).all(1)
    assert same.mean() > 0.9
