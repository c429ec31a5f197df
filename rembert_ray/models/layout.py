"""Where tokens lie: the only thing that attention must know and that the rest of a layer need not.

Hidden states are `[batch, length, hidden]` in the padded layout and `[tokens, hidden]` in the packed one. Linear
layers and norms treat both alike; a layout owns the attention call.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class Layout(Protocol):
    """What a layer asks of a layout."""

    def attend(self, qkv: Tensor, n_heads: int, dropout: float) -> Tensor:
        """Self-attention.

        Args:
            qkv: `[..., 3 * hidden]`, queries, keys and values side by side.
            n_heads: attention heads; each takes `hidden / n_heads` columns, scores are divided by its root.
            dropout: probability with which an attention weight is dropped; 0 outside training.

        Returns:
            `[..., hidden]`.
        """
        ...


@dataclass(frozen=True)
class PaddedLayout:
    """Rows of equal length with a mask, as Hugging Face's `forward` takes them."""

    bias: Tensor | None
    """Added to the scores: `[batch, 1, 1 or queries, keys]`, 0 where allowed, the dtype's minimum where not."""

    @classmethod
    def from_mask(cls, attention_mask: Tensor | None, dtype: torch.dtype) -> PaddedLayout:
        """From a mask of 1 (attend) and 0 (ignore): `[batch, keys]` or `[batch, queries, keys]`."""
        if attention_mask is None:
            return cls(None)
        if attention_mask.dim() not in (2, 3):
            raise ValueError(f"attention_mask has {attention_mask.dim()} dimensions, expected 2 or 3")
        mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None]
        # The minimum, not -inf: a row that may attend to nothing stays finite, as in Hugging Face.
        return cls((1.0 - mask.to(dtype)) * torch.finfo(dtype).min)

    def attend(self, qkv: Tensor, n_heads: int, dropout: float) -> Tensor:
        """See `Layout.attend`."""
        batch, length, width = qkv.shape
        q, k, v = qkv.view(batch, length, 3, n_heads, width // (3 * n_heads)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=self.bias, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(batch, length, width // 3)


@dataclass(frozen=True)
class PackedLayout:
    """Sequences one after the other with nothing between them: no padding is computed.

    On CUDA one variable-length kernel serves all; on CPU, which has none, neighbours of equal length share one
    dense call, so a batch that is sorted by length needs few.
    """

    cu_seqlens: Tensor
    """int32 `[sequences + 1]` on the device: where each sequence starts, then the number of tokens."""
    groups: tuple[tuple[int, int, int], ...]
    """Runs of equal lengths: (first token, number of sequences, length)."""
    max_length: int

    @classmethod
    def from_lengths(cls, lengths: list[int], device: torch.device) -> PackedLayout:
        """From the length in tokens of each sequence, in order; every length is at least 1."""
        if not lengths or min(lengths) < 1:
            raise ValueError("a packed batch holds at least one sequence and no empty one")
        starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        torch.cumsum(torch.tensor(lengths, dtype=torch.int32), 0, out=starts[1:])
        groups, first = [], 0
        for length, run in groupby(lengths):
            n_sequences = len(list(run))
            groups.append((first, n_sequences, length))
            first += n_sequences * length
        return cls(starts.to(device, non_blocking=True), tuple(groups), max(lengths))

    def attend(self, qkv: Tensor, n_heads: int, dropout: float) -> Tensor:
        """See `Layout.attend`."""
        if qkv.device.type == "cuda":
            return self._attend_varlen(qkv, n_heads, dropout)
        n_tokens, width = qkv.shape
        head_size = width // (3 * n_heads)
        mixed = qkv.new_empty(n_tokens, width // 3)
        for first, n_sequences, length in self.groups:
            end = first + n_sequences * length
            q, k, v = qkv[first:end].view(n_sequences, length, 3, n_heads, head_size).permute(2, 0, 3, 1, 4)
            out = scaled_dot_product_attention(q, k, v, dropout_p=dropout)
            mixed[first:end].view(n_sequences, length, n_heads, head_size).copy_(out.transpose(1, 2))
        return mixed

    def _attend_varlen(self, qkv: Tensor, n_heads: int, dropout: float) -> Tensor:
        from torch.nn.attention.varlen import (
            varlen_attn,
        )  # imported here: absent from CPU-only builds of old torch

        if dropout:
            raise ValueError("the packed layout on CUDA has no attention dropout: train with the padded layout")
        n_tokens, width = qkv.shape
        q, k, v = qkv.view(n_tokens, 3, n_heads, width // (3 * n_heads)).unbind(1)
        # One split: the same bits for a sequence whatever shares its batch.
        mixed: Any = varlen_attn(
            q, k, v, self.cu_seqlens, self.cu_seqlens, self.max_length, self.max_length, num_splits=1
        )
        return cast(Tensor, mixed.reshape(n_tokens, width // 3))
