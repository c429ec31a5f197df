"""Encoder layers with int8 products, for CPUs with VNNI.

Weights are int8 with a scale for each output, quantized once; activations are uint8 with a scale for each row,
quantized as they come: one scale for a whole batch would be faster, but a row would then depend on its batch mates.
Sums are exact, in int32. Embeddings, norms, attention and heads stay float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rembert_ray.engine.prepacked import PREPACK_ROWS
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.layers import Layer

LARGEST = 127
# oneDNN multiplies unsigned by signed numbers many times faster than signed by signed: rows are shifted by this.
ZERO_POINT = 128
# A row of zeros would have scale 0.
SMALLEST_SCALE = 1e-12


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[rows, width]` to uint8 around `ZERO_POINT` and float32 scales `[rows, 1]`."""
    scale = x.abs().amax(-1, keepdim=True).div_(LARGEST).clamp_min_(SMALLEST_SCALE)
    return (x / scale).round_().add_(ZERO_POINT).to(torch.uint8), scale


class Int8Linear(nn.Module):
    """A float32 linear layer that quantizes its rows and multiplies them in int8. Inference only, CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).div_(LARGEST).clamp_min_(SMALLEST_SCALE)
        values = (weight / scale[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(values, [PREPACK_ROWS, linear.in_features])
        self.scale, self.zero_points = scale, torch.zeros(len(scale), dtype=torch.int32)
        self.bias = linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        values, scale = quantize_rows(x.flatten(0, -2))
        op: Any = torch.ops.onednn.qlinear_pointwise
        # The op knows one scale for all rows, so those of rows, and with them the bias, come after it.
        weight = (self.weight, self.scale, self.zero_points)
        sums = op(values, 1.0, ZERO_POINT, *weight, None, 1.0, 0, torch.float32, "none", [], "")
        rows = torch.addcmul(self.bias, sums, scale, out=sums)
        return rows.view(*x.shape[:-1], -1)


def quantize_layers(model: nn.Module) -> None:
    """Make the products of the encoder layers of a float32 model int8, in place.

    Raises:
        UnusableError: the processor lacks VNNI, without which sums of products overflow.
    """
    if not torch.cpu._is_vnni_supported():
        what = "int8 needs a processor with AVX-512 VNNI, and a worker's has none"
        raise UnusableError(Fault("precision", what, "set precision: float32"))
    for layer in model.modules():
        if isinstance(layer, Layer):
            for part, name in (
                (layer.attention, "qkv"),
                (layer.attention, "output"),
                (layer.feed_forward, "up"),
                (layer.feed_forward, "down"),
            ):
                setattr(part, name, Int8Linear(getattr(part, name)))
