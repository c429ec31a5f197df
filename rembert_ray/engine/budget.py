"""How many tokens a batch may have where the manifest leaves it open: enough to fill the device, and that is all.

More tokens do not run faster than that, they only cost memory. The number is in every receipt and in the log.
"""

from __future__ import annotations

from typing import Protocol

import torch

from rembert_ray.models.config import EncoderConfig

# Best of 512 to 4,096 for a layer of RemBERT, by little (benchmarks/RESULTS.md); narrower layers want no more.
CPU_BATCH_TOKENS = 1536
# Rows of a tile of the matrix product: a whole wave is one tile for each multiprocessor.
TILE_ROWS = 128
WAVES = 2
# Of the memory that is free once the model is loaded; the rest is for the head, the next batches and fragmentation.
MEMORY_SHARE = 0.5
FLOAT_BYTES = 4


class HasConfig(Protocol):
    """An encoder of a known shape."""

    @property
    def config(self) -> EncoderConfig:
        """Its shape."""
        ...


def choose_batch_tokens(encoder: HasConfig, device: torch.device) -> int:
    """Tokens of a batch of this encoder, which is already on the device.

    On a GPU two whole waves of tiles (33,792 tokens on an H100 or H200), or the whole tiles that fit its free memory,
    at least one.
    """
    if device.type != "cuda":
        return CPU_BATCH_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    n_multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return fit_gpu(encoder.config, free, n_multiprocessors)


def fit_gpu(config: EncoderConfig, free_bytes: int, n_multiprocessors: int) -> int:
    """See `choose_batch_tokens`."""
    wanted = WAVES * n_multiprocessors * TILE_ROWS
    affordable = int(free_bytes * MEMORY_SHARE) // bytes_per_token(config)
    return min(wanted, max(affordable // TILE_ROWS, 1) * TILE_ROWS)


def bytes_per_token(config: EncoderConfig) -> int:
    """What a layer holds of a token at its peak, in float32: its input with queries, keys, values and their mix, or its
    input with both sides of the activation; and what a head makes of it."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return FLOAT_BYTES * (max(5 * hidden, 2 * hidden + 2 * inner) + hidden)
