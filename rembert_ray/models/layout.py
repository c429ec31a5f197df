"""Where tokens lie: the only thing that attention must know and that the rest of a layer need not.

Hidden states are `[batch, length, hidden]` in the padded layout and `[tokens, hidden]` in the packed one. Linear
layers and norms treat both alike; a layout owns the attention call, and with it masks, causality and the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention

from rembert_ray.models.cache import KeyValueCache


class Layout(Protocol):
    """What a model asks of a layout."""

    def count(self, is_counted: Tensor) -> Tensor:
        """For each token how many of its sequence, up to and including it, are counted: int64, shape of the ids."""
        ...

    def attend(self, qkv: Tensor, n_heads: int, dropout: float, layer: int) -> Tensor:
        """Self-attention of one layer.

        Args:
            qkv: `[..., 3 * hidden]`, queries, keys and values side by side.
            n_heads: attention heads; each takes `hidden / n_heads` columns, scores are divided by its root.
            dropout: probability with which an attention weight is dropped; 0 outside training.
            layer: index of the layer.

        Returns:
            `[..., hidden]`.
        """
        ...

    def attend_memory(
        self, query: Tensor, key_value: Callable[[Tensor], Tensor], n_heads: int, dropout: float, layer: int
    ) -> Tensor | None:
        """Cross-attention over an encoder's hidden states; None when there are none.

        `query` is `[..., hidden]`; `key_value` maps the encoder's `[batch, keys, hidden]` to `[..., 2 * hidden]`.
        """
        ...


@dataclass(frozen=True)
class PaddedLayout:
    """Rows of equal length with a mask, as Hugging Face's `forward` takes them; a decoder's cache, if any."""

    bias: Tensor | None
    """Added to the scores: `[batch or 1, 1, queries or 1, keys]`, 0 where allowed, the dtype's minimum where not."""
    cache: KeyValueCache | None = None
    memory: Tensor | None = None
    """Hidden states of an encoder, `[batch, keys, hidden]`, for cross-attention."""
    memory_bias: Tensor | None = None
    attentions: list[Tensor] | None = None
    """Where given, attention weights `[batch, heads, queries, keys]` are appended, layer by layer."""
    cross_attentions: list[Tensor] | None = None

    def count(self, is_counted: Tensor) -> Tensor:
        """See `Layout.count`; tokens in the cache are counted, all of them, as Hugging Face does."""
        past = 0 if self.cache is None else self.cache.get_seq_length()
        return is_counted.long().cumsum(-1) + past

    def attend(self, qkv: Tensor, n_heads: int, dropout: float, layer: int) -> Tensor:
        """See `Layout.attend`."""
        q, k, v = _split_heads(qkv, 3, n_heads)
        if self.cache is not None:
            k, v = self.cache.update(layer, k, v)
        return _attend(q, k, v, self.bias, dropout, self.attentions)

    def attend_memory(
        self, query: Tensor, key_value: Callable[[Tensor], Tensor], n_heads: int, dropout: float, layer: int
    ) -> Tensor | None:
        """See `Layout.attend_memory`."""
        if self.memory is None:
            return None
        known = None if self.cache is None else self.cache.memory(layer)
        k, v = _split_heads(key_value(self.memory), 2, n_heads) if known is None else known
        if self.cache is not None and known is None:
            self.cache.set_memory(layer, k, v)
        (q,) = _split_heads(query, 1, n_heads)
        return _attend(q, k, v, self.memory_bias, dropout, self.cross_attentions)


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
    is_causal: bool = False

    @classmethod
    def from_lengths(cls, lengths: list[int], device: torch.device, *, is_causal: bool = False) -> PackedLayout:
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
        return cls(starts.to(device, non_blocking=True), tuple(groups), max(lengths), is_causal)

    def count(self, is_counted: Tensor) -> Tensor:
        """See `Layout.count`."""
        total = is_counted.long().cumsum(0)
        before_sequence = (total - is_counted.long())[self.cu_seqlens[:-1].long()]
        lengths = self.cu_seqlens.diff().long()
        return total - before_sequence.repeat_interleave(lengths, output_size=len(total))

    def attend(self, qkv: Tensor, n_heads: int, dropout: float, layer: int) -> Tensor:
        """See `Layout.attend`."""
        if qkv.device.type == "cuda":
            return self._attend_varlen(qkv, n_heads, dropout)
        n_tokens, width = qkv.shape
        head_size = width // (3 * n_heads)
        mixed = qkv.new_empty(n_tokens, width // 3)
        for first, n_sequences, length in self.groups:
            end = first + n_sequences * length
            q, k, v = qkv[first:end].view(n_sequences, length, 3, n_heads, head_size).permute(2, 0, 3, 1, 4)
            out = scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.is_causal)
            mixed[first:end].view(n_sequences, length, n_heads, head_size).copy_(out.transpose(1, 2))
        return mixed

    def attend_memory(
        self, query: Tensor, key_value: Callable[[Tensor], Tensor], n_heads: int, dropout: float, layer: int
    ) -> Tensor | None:
        """See `Layout.attend_memory`: a packed batch has no encoder beside it."""
        return None

    def _attend_varlen(self, qkv: Tensor, n_heads: int, dropout: float) -> Tensor:
        # Imported here: absent from CPU-only builds of old torch.
        from torch.nn.attention.varlen import varlen_attn

        if dropout:
            raise ValueError("the packed layout on CUDA has no attention dropout: train with the padded layout")
        n_tokens, width = qkv.shape
        q, k, v = qkv.view(n_tokens, 3, n_heads, width // (3 * n_heads)).unbind(1)
        bounds, longest = self.cu_seqlens, self.max_length
        window = (-1, 0) if self.is_causal else (-1, -1)
        # One split: the same bits for a sequence whatever shares its batch.
        mixed: Any = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=window, num_splits=1)
        return cast(Tensor, mixed.reshape(n_tokens, width // 3))


def attention_bias(
    attention_mask: Tensor | None, n_queries: int, n_keys: int, like: Tensor, *, is_causal: bool
) -> Tensor | None:
    """What is added to attention scores, from a mask of 1 (attend) and 0 (ignore) and, in a decoder, causality.

    Args:
        attention_mask: `[batch, keys]` or `[batch, queries, keys]`, of any number or bool type; None allows all.
        n_queries: tokens in this pass.
        n_keys: these and those in the cache before them.
        like: a tensor of the scores' type and device.
        is_causal: whether a token may look at itself and at what is before it only.

    Returns:
        `[batch or 1, 1, queries or 1, keys]`, or None where everything is allowed.

    Raises:
        ValueError: the mask has another number of dimensions.
    """
    allowed = None
    if attention_mask is not None:
        if attention_mask.dim() not in (2, 3):
            raise ValueError(f"attention_mask has {attention_mask.dim()} dimensions, expected 2 or 3")
        mask = attention_mask.bool()
        allowed = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    if is_causal and n_queries > 1:
        triangle = torch.ones(n_queries, n_keys, dtype=torch.bool, device=like.device).tril(n_keys - n_queries)
        allowed = triangle[None, None] if allowed is None else allowed & triangle
    if allowed is None:
        return None
    # The minimum, not -inf: a row that may attend to nothing stays finite, as in Hugging Face.
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill(~allowed, torch.finfo(like.dtype).min)


def _split_heads(x: Tensor, n_parts: int, n_heads: int) -> tuple[Tensor, ...]:
    """`[batch, length, parts * hidden]` to `parts` tensors `[batch, heads, length, head size]`."""
    batch, length, width = x.shape
    return x.view(batch, length, n_parts, n_heads, width // (n_parts * n_heads)).permute(2, 0, 3, 1, 4).unbind()


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, record: list[Tensor] | None
) -> Tensor:
    if record is None:
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    else:
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        weights = drop((scores if bias is None else scores + bias).softmax(-1), dropout)
        record.append(weights)
        mixed = weights @ v
    return mixed.transpose(1, 2).flatten(2)
