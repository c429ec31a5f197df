"""The last layer for few tokens against all of them: the same hidden states, whatever is read of which sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.narrowed_layout import NarrowedLayout

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}


def make_encoder(config_class, *, prepacked: bool) -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(config_class(**SIZES)).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if prepacked:
        prepack_linears(encoder)
    return encoder


ENCODERS = [
    make_encoder(config_class, prepacked=prepacked)
    for config_class in (RemBertConfig, RobertaPreLayerNormConfig)
    for prepacked in (False, True)
]


@settings(deadline=None)
@given(st.data(), st.sampled_from(ENCODERS))
@torch.inference_mode()
def test_the_tokens_that_are_read_are_those_of_the_whole_layer(data, encoder):
    lengths = data.draw(st.lists(st.sampled_from([1, 2, 2, 5, 9]), min_size=1, max_size=8))
    n_rows = [data.draw(st.integers(0, length)) for length in lengths]
    if not any(n_rows):
        n_rows[0] = 1
    starts = np.cumsum([0, *lengths])
    rows = [
        start + place
        for start, length, n in zip(starts, lengths, n_rows, strict=False)
        for place in sorted(data.draw(st.permutations(range(length)))[:n])
    ]
    ids = torch.randint(3, 50, (sum(lengths),))
    layout = PackedLayout.from_lengths(lengths, CPU)
    narrowed = NarrowedLayout.of(layout, lengths, torch.tensor(rows), n_rows)
    whole = encoder.encode(ids, torch.zeros_like(ids), layout)
    found = encoder.encode(ids, torch.zeros_like(ids), layout, narrowed=narrowed)
    np.testing.assert_allclose(found, whole[rows], atol=2e-5)


def test_a_causal_layer_is_not_narrowed():
    layout = PackedLayout.from_lengths([3], CPU, is_causal=True)
    with pytest.raises(ValueError, match="causal"):
        NarrowedLayout.of(layout, [3], torch.tensor([0]), [1])
