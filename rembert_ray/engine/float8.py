"""Encoder layers with float8 products, for GPUs from compute capability 8.9 (Ada, Hopper, Blackwell).

Weights are e4m3 (Micikevicius et al. 2022, arXiv:2209.05433) with a scale for each output, quantized once; activations
are e4m3 with a scale for each row, quantized as they come, so that no row depends on its batch mates. Products add up
in float32 and give bfloat16. Embeddings, norms, attention and heads stay bfloat16; so does the product behind
attention, which is 8 % of the work, makes a fifth of the drift, and has nothing before it that could be fused.

It runs on CPU too, slowly: that is how it is tested. It has not been run on a GPU.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from rembert_ray.engine.compiled import can_compile, compiled
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.layers import Layer

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
# A row of zeros would have scale 0.
SMALLEST_SCALE = 1e-12
CAPABILITY = (8, 9)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`[rows, width]` to e4m3 of the same shape and float32 scales `[rows, 1]`: `x` is about their product."""
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(SMALLEST_SCALE)
    # The conversion makes NaN, not the largest number, of what is too large.
    return (x / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


class Float8Linear(nn.Module):
    """A linear layer that quantizes its rows and multiplies them in float8. Inference only.

    In a compiled body (see `CompiledLayer`) the quantization is one kernel with the norm, sum or activation before it:
    by itself it would read and write as much as the float8 product saves.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, scale = quantize_rows(linear.weight.detach())
        # The product wants its second factor column by column: the transpose of rows is that.
        self.weight, self.scale = values.t(), scale.t().contiguous()
        self.bias = linear.bias.detach()
        self.quantize_rows = compiled(quantize_rows) if can_compile(values.device) else quantize_rows

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to bfloat16 `[..., out]`."""
        values, scale = self.quantize_rows(x.flatten(0, -2))
        product: Any = torch._scaled_mm
        rows = product(
            values,
            self.weight,
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return cast(Tensor, rows.unflatten(0, x.shape[:-1]))


def quantize_layers(model: nn.Module) -> None:
    """Make the products of the encoder layers of a bfloat16 model float8, in place.

    Raises:
        UnusableError: the model is on a GPU that has no float8 products.
    """
    device = next(model.parameters()).device
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        name, needed = torch.cuda.get_device_name(device), ".".join(map(str, CAPABILITY))
        what = f"float8 needs a GPU of compute capability {needed}; {name} has {'.'.join(map(str, found))}"
        raise UnusableError(Fault("precision", what, "set precision: bfloat16"))
    for layer in model.modules():
        if isinstance(layer, Layer):
            for part, name in ((layer.attention, "qkv"), (layer.feed_forward, "up"), (layer.feed_forward, "down")):
                setattr(part, name, Float8Linear(getattr(part, name)))
