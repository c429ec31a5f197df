"""Encoder layers for GPUs whose sums, norms and activations are fused by `torch.compile`.

One body is compiled, not the stack: every layer and every number of tokens runs through the same kernels, so that a
start costs one compilation, and actors on a node and later nights take it from torch's cache on disk. On CPU there is
nothing left to fuse: see `prepacked`. It has not been run on a GPU; on CPU its function is tested.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from rembert_ray.models.layers import Layer
from rembert_ray.models.layout import Layout

log = logging.getLogger(__name__)

Function = Callable[..., Any]


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` makes GPU kernels here: it needs Triton, and Triton needs a C compiler."""
    has_compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return device.type == "cuda" and has_compiler and find_spec("triton") is not None


@cache
def compiled(function: Function) -> Function:
    """The function as fused kernels for any number of tokens."""
    return torch.compile(function, dynamic=True)


def finish_layer(layer: Layer, mixed: Tensor, hidden: Tensor) -> Tensor:
    """All of a layer (without cross-attention) after attention, for inference.

    Args:
        layer: whose weights are taken.
        mixed: `[tokens, hidden]`, what attention returned.
        hidden: `[tokens, hidden]`, what went into the layer.
    """
    hidden = layer.norm_after_attention(layer.attention.output(mixed) + hidden)
    change = layer.feed_forward(layer.norm_before_feed_forward(hidden))
    return cast(Tensor, layer.norm_after_feed_forward(change + hidden))


class CompiledLayer(nn.Module):
    """`Layer` (without cross-attention) with everything after attention compiled. Inference only."""

    def __init__(self, layer: Layer, compile_function: Callable[[Function], Function] = compiled) -> None:
        super().__init__()
        self.plain = layer
        self.finish = compile_function(finish_layer)

    def forward(self, hidden: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """See `Layer.forward`."""
        attention = self.plain.attention
        qkv = attention.qkv(self.plain.norm_before_attention(hidden))
        mixed = layout.attend(qkv, attention.n_heads, 0.0, attention.layer)
        return cast(Tensor, self.finish(self.plain, mixed, hidden if rows is None else hidden[rows]))


def compile_layers(model: nn.Module) -> bool:
    """Replace the encoder layers of a model on a GPU by compiled ones, in place.

    Returns:
        False, with the model untouched, where the model is on CPU or nothing can be compiled; the log says so.
    """
    device = next(model.parameters()).device
    if not can_compile(device):
        if device.type == "cuda":
            log.warning("no Triton or no C compiler here: layers run as they are, with more passes over memory")
        return False
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Layer) and child.cross_attention is None:
                setattr(parent, name, CompiledLayer(child))
    log.info("the layers' element-wise work is compiled; the first batch waits for it unless it is cached")
    return True
