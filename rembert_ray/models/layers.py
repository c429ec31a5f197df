"""The layer that every architecture shares. It knows neither padding nor batches: see `layout`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from rembert_ray.models.config import EncoderConfig
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

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.layer = layer
        self.n_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`, before dropout, residual and norm."""
        dropout = self.dropout if self.training else 0.0
        return cast(Tensor, self.output(layout.attend(self.qkv(hidden), self.n_heads, dropout, self.layer)))


class CrossAttention(nn.Module):
    """Multi-head attention of a decoder's tokens over an encoder's hidden states, which the layout knows."""

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.layer = layer
        self.n_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor | None:
        """`[..., hidden]` to `[..., hidden]`; None where there is no encoder to look at."""
        dropout = self.dropout if self.training else 0.0
        mixed = layout.attend_memory(self.query(hidden), self.key_value, self.n_heads, dropout, self.layer)
        return None if mixed is None else cast(Tensor, self.output(mixed))


class FeedForward(nn.Module):
    """Two linear layers with the activation between them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        return cast(Tensor, self.down(self.activation(self.up(hidden))))


class Layer(nn.Module):
    """Self-attention, cross-attention in a decoder that has it, and feed-forward, each with residual and norm.

    A post-norm architecture (Vaswani et al. 2017; RemBERT) fills the slots `norm_after_*`, a pre-norm one (Xiong et
    al. 2020; RoBERTa-PreLayerNorm) the slots `norm_before_*`; the others do nothing.
    """

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        before, after = (_norm, _no_norm) if config.norm_first else (_no_norm, _norm)
        self.norm_before_attention = before(config)
        self.attention = Attention(config, layer)
        self.norm_after_attention = after(config)
        self.cross_attention = CrossAttention(config, layer) if config.add_cross_attention else None
        if self.cross_attention is not None:
            self.norm_before_cross_attention = before(config)
            self.norm_after_cross_attention = after(config)
        self.norm_before_feed_forward = before(config)
        self.feed_forward = FeedForward(config)
        self.norm_after_feed_forward = after(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, layout: Layout, rows: Tensor | None = None) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`; with a `NarrowedLayout` to `[rows, hidden]`, of its `rows`."""
        change = self.attention(self.norm_before_attention(hidden), layout)
        if rows is not None:
            hidden = hidden[rows]
        hidden = self.norm_after_attention(self._add(change, hidden))
        if self.cross_attention is not None:
            change = self.cross_attention(self.norm_before_cross_attention(hidden), layout)
            if change is not None:
                hidden = self.norm_after_cross_attention(self._add(change, hidden))
        change = self.feed_forward(self.norm_before_feed_forward(hidden))
        return cast(Tensor, self.norm_after_feed_forward(self._add(change, hidden)))

    def _add(self, change: Tensor, hidden: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return cast(Tensor, self.dropout(change) + hidden)
        # `change` is fresh from a linear layer and nobody else holds it: no third buffer.
        return cast(Tensor, self.dropout(change).add_(hidden))


def _norm(config: EncoderConfig) -> nn.Module:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


def _no_norm(config: EncoderConfig) -> nn.Module:
    return nn.Identity()
