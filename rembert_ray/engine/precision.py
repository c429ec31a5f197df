"""Numeric types by device, and the CPU's fast linear layers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from rembert_ray.models.layers import Layer
from rembert_ray.models.layout import Layout

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")
# oneDNN chooses the memory layout of a prepacked weight for a number of rows; it serves all others too.
PREPACK_ROWS = 1024


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of the weights and of the forward pass.

    `auto` is bfloat16 on CUDA and float32 on CPU, where half precision is several times slower.
    """
    if precision == AUTO:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}, known: {', '.join(PRECISIONS)}")
    return cast(torch.dtype, getattr(torch, precision))


class PrepackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout and, optionally, GELU inside the product.

    Equal to `nn.Linear` (and the exact erf GELU) up to the order of additions. Inference only, CPU, float32.
    """

    def __init__(self, linear: nn.Linear, *, with_gelu: bool = False) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), PREPACK_ROWS)
        self.bias = linear.bias.detach()
        self.attribute = "gelu" if with_gelu else "none"
        self.algorithm = "none" if with_gelu else ""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        op: Any = torch.ops.mkldnn._linear_pointwise
        return cast(Tensor, op(x, self.weight, self.bias, self.attribute, [], self.algorithm))

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` `[..., out]` plus the layer (without GELU) over `x` `[..., in]`, in one pass over memory."""
        op: Any = torch.ops.mkldnn._linear_pointwise.binary
        return cast(Tensor, op(x, residual, self.weight, self.bias, "add"))


class PrepackedLayer(nn.Module):
    """`Layer` (without cross-attention) with prepacked linear layers, and its residual sums inside of their products.

    Equal to it up to the order of additions. Inference only.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        activation = layer.feed_forward.activation
        with_gelu = isinstance(activation, nn.GELU)
        self.n_heads, self.layer = layer.attention.n_heads, layer.attention.layer
        self.norm_before_attention = layer.norm_before_attention
        self.qkv = PrepackedLinear(layer.attention.qkv)
        self.output = PrepackedLinear(layer.attention.output)
        self.norm_after_attention = layer.norm_after_attention
        self.norm_before_feed_forward = layer.norm_before_feed_forward
        self.up = PrepackedLinear(layer.feed_forward.up, with_gelu=with_gelu)
        self.activation = nn.Identity() if with_gelu else activation
        self.down = PrepackedLinear(layer.feed_forward.down)
        self.norm_after_feed_forward = layer.norm_after_feed_forward

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        qkv = self.qkv(self.norm_before_attention(hidden))
        mixed = layout.attend(qkv, self.n_heads, 0.0, self.layer)
        hidden = self.norm_after_attention(self.output.add(hidden, mixed))
        inner = self.activation(self.up(self.norm_before_feed_forward(hidden)))
        return cast(Tensor, self.norm_after_feed_forward(self.down.add(hidden, inner)))


def prepack_linears(model: nn.Module) -> bool:
    """Replace every encoder layer and every other linear layer by its prepacked form, in place.

    Returns:
        False, with the model untouched, where oneDNN is not built in or the model is not float32 on CPU.
    """
    parameter = next(model.parameters())
    if not torch.backends.mkldnn.is_available() or parameter.device.type != "cpu":  # type: ignore[no-untyped-call]
        return False
    if parameter.dtype != torch.float32:
        return False
    _prepack_children(model)
    return True


def _prepack_children(module: nn.Module) -> None:
    # One child at a time: a list of them would keep all replaced weights, and so double the memory.
    for name in [name for name, _ in module.named_children()]:
        child = module.get_submodule(name)
        if isinstance(child, Layer) and child.cross_attention is None:
            setattr(module, name, PrepackedLayer(child))
        elif isinstance(child, nn.Linear):
            setattr(module, name, PrepackedLinear(child))
        else:
            _prepack_children(child)
