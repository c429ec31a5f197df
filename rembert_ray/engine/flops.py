"""How many floating-point operations the windows of a job need: what is useful of what a device could do."""

from __future__ import annotations

from rembert_ray.engine.packing import Long
from rembert_ray.models.config import EncoderConfig


def count_flops(lengths: Long, config: EncoderConfig) -> float:
    """Additions and multiplications of the encoder's matrix products for windows of these lengths in tokens.

    A pruned last layer, heads, norms and activations are left out, padding does not exist.
    """
    hidden, inner, n_layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = 2 * hidden * (4 * hidden + 2 * inner)
    per_token = n_layers * linear + 2 * config.embedding_size * hidden
    return float(per_token * lengths.sum() + n_layers * 4 * hidden * (lengths**2).sum())
