"""The CPU's fast linear layers: weights in oneDNN's own layout, GELU and residual sums inside of the products."""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor, nn

from rembert_ray.models.layers import Layer
from rembert_ray.models.layout import Layout

# oneDNN chooses the memory layout of a prepacked weight for a number of rows; it serves all others too.
PREPACK_ROWS = 1024
# oneDNN, and torch's layer over it, keep kernels and buffers of the last 1,024 shapes of products: half a gigabyte,
# because batches have many sizes. A forward pass has a dozen shapes, and few of them come again.
CACHE_SIZES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
CACHE_SIZE = "32"


class PrepackedLinear(nn.Module):
    """A linear layer with its weight in oneDNN's own layout and, optionally, GELU inside the product.

    Equal to `nn.Linear` (and the exact erf GELU) up to the order of additions; in bfloat16 these are float32 inside of
    a product, and GELU and residual sum come before its only rounding. A row has the same bits whatever the others:
    oneDNN adds in another order for a single row only, so there are always two. Inference only, CPU.
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
        if x.numel() == x.shape[-1]:
            return cast(Tensor, self(_twice(x))[0].view(*x.shape[:-1], -1))
        return cast(Tensor, op(x, self.weight, self.bias, self.attribute, [], self.algorithm))

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` `[..., out]` plus the layer (without GELU) over `x` `[..., in]`, in one pass over memory."""
        op: Any = torch.ops.mkldnn._linear_pointwise.binary
        if x.numel() == x.shape[-1]:
            return self.add(_twice(residual), _twice(x))[0].view_as(residual)
        return cast(Tensor, op(x, residual, self.weight, self.bias, "add"))


def _twice(row: Tensor) -> Tensor:
    return row.reshape(1, -1).repeat(2, 1)


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

    def forward(self, hidden: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """See `Layer.forward`."""
        qkv = self.qkv(self.norm_before_attention(hidden))
        mixed = layout.attend(qkv, self.n_heads, 0.0, self.layer)
        if rows is not None:
            hidden = hidden[rows]
        hidden = self.norm_after_attention(self.output.add(hidden, mixed))
        inner = self.activation(self.up(self.norm_before_feed_forward(hidden)))
        return cast(Tensor, self.norm_after_feed_forward(self.down.add(hidden, inner)))


def prepack_linears(model: nn.Module) -> bool:
    """Replace encoder layers that are not quantized, and other linear layers, by their prepacked form, in place.

    Returns:
        False, with the model untouched, where it is not on CPU, or oneDNN is not built in or lacks its type (it has
        float32, and bfloat16 on processors with AVX-512; products of float16 are not prepacked).
    """
    for name in CACHE_SIZES:
        os.environ.setdefault(name, CACHE_SIZE)
    parameter = next(model.parameters())
    if not torch.backends.mkldnn.is_available() or parameter.device.type != "cpu":  # type: ignore[no-untyped-call]
        return False
    has_type = parameter.dtype == torch.float32
    if parameter.dtype == torch.bfloat16:
        has_type = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if has_type:
        _prepack_children(model)
    return has_type


def _prepack_children(module: nn.Module) -> None:
    # One child at a time: a list of them would keep all replaced weights, and so double the memory.
    for name in [name for name, _ in module.named_children()]:
        child = module.get_submodule(name)
        if isinstance(child, Layer) and child.cross_attention is None and isinstance(child.feed_forward.up, nn.Linear):
            setattr(module, name, PrepackedLayer(child))
        elif isinstance(child, nn.Linear):
            setattr(module, name, PrepackedLinear(child))
        else:
            _prepack_children(child)
