"""The encoder layer that every architecture shares. It knows neither padding nor batches: see `layout`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from rembert_ray.models.layout import Layout


class GeluTanh(nn.Module):
    """GELU by its tanh approximation: Hugging Face's `gelu_new` (Hendrycks and Gimpel, arXiv:1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise."""
        return nn.functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": GeluTanh,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values are one matrix product."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`, before dropout, residual and norm."""
        dropout = self.dropout if self.training else 0.0
        return cast(Tensor, self.output(layout.attend(self.qkv(hidden), self.n_heads, dropout)))


class FeedForward(nn.Module):
    """Two linear layers with the activation between them."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACTIVATIONS[activation]()
        self.down = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        return cast(Tensor, self.down(self.activation(self.up(hidden))))


class PostNormLayer(nn.Module):
    """An encoder layer that normalizes after each residual sum (Vaswani et al. 2017; BERT, RemBERT)."""

    def __init__(self, attention: Attention, feed_forward: FeedForward, eps: float, dropout: float) -> None:
        super().__init__()
        hidden_size = attention.output.out_features
        self.attention = attention
        self.norm_after_attention = nn.LayerNorm(hidden_size, eps=eps)
        self.feed_forward = feed_forward
        self.norm_after_feed_forward = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        hidden = self.norm_after_attention(self._add(self.attention(hidden, layout), hidden))
        return cast(Tensor, self.norm_after_feed_forward(self._add(self.feed_forward(hidden), hidden)))

    def _add(self, change: Tensor, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return cast(Tensor, self.dropout(change) + hidden)
        # `change` is fresh from a linear layer and nobody else holds it: no third buffer.
        return cast(Tensor, self.dropout(change).add_(hidden))
