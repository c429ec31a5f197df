"""The compiled layer against the plain one, on CPU and without making kernels; one compilation for all layers."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from rembert_ray.engine.compiled import CompiledLayer, compile_layers
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.layers import Layer
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.narrowed_layout import NarrowedLayout

CPU = torch.device("cpu")
SIZES = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 48}


@pytest.mark.parametrize("config_class", [RemBertConfig, RobertaPreLayerNormConfig])
@torch.inference_mode()
def test_one_compilation_serves_all_layers_and_all_numbers_of_tokens(config_class):
    torch.manual_seed(0)
    torch._dynamo.reset()
    encoder = Encoder(config_class(**SIZES)).eval()
    counter = CompileCounter()
    compile_once = cache(partial(torch.compile, dynamic=True, fullgraph=True, backend=counter))
    layers = [CompiledLayer(layer, compile_once) for layer in encoder.layers]
    for lengths in ([3, 4], [20, 7, 7], [90]):
        hidden, layout = torch.randn(sum(lengths), 32), PackedLayout.from_lengths(lengths, CPU)
        rows = layout.cu_seqlens[:-1].long()
        narrowed = NarrowedLayout.of(layout, lengths, rows, [1] * len(lengths))
        for plain, compiled in zip(encoder.layers, layers, strict=True):
            torch.testing.assert_close(compiled(hidden, layout), plain(hidden, layout))
        if len(rows) > 1:
            torch.testing.assert_close(compiled(hidden, narrowed, rows), plain(hidden, narrowed, rows))
    assert counter.frame_count == 1


def test_nothing_is_compiled_on_cpu():
    encoder = Encoder(RemBertConfig(**SIZES))
    assert not compile_layers(encoder)
    assert all(isinstance(layer, Layer) for layer in encoder.layers)
