"""The limit of the machine: the linear layers of an encoder alone, in large batches. No attention, no norms.

Nobody's forward pass can be faster than its matrix products by the faster of the two libraries that torch has on CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rembert_ray.engine.prepacked import PrepackedLinear

# Library and rows of a product: small enough for the caches, and large.
ROOFS = (("torch", 4096), ("oneDNN prepacked", 1536), ("oneDNN prepacked", 4096))


def linears_alone(layers: nn.Module, library: str, n_rows: int, n_passes: int) -> tuple[Callable[[], None], float]:
    """A run of every product of `layers` on `n_rows` rows, `n_passes` times; and its additions and multiplications."""
    linears = [module for module in layers.modules() if isinstance(module, nn.Linear)]
    calls: list[tuple[nn.Module, int]] = [
        (linear if library == "torch" else PrepackedLinear(linear), linear.in_features) for linear in linears
    ]
    inputs: dict[int, Tensor] = {width: torch.randn(n_rows, width) for _, width in calls}

    def run() -> None:
        for _ in range(n_passes):
            for linear, width in calls:
                linear(inputs[width])

    return run, 2.0 * n_passes * n_rows * sum(linear.weight.numel() for linear in linears)
