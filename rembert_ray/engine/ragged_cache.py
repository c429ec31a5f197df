"""Keys and values of rows of different lengths, in buffers that are made once and never move.

A row owns a run of neighbouring places while it lives; those of a row that left go to one that waits, and nobody else
is copied. It knows neither tokens nor when a row ends: see `continuous_batch`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.narrowed_layout import at_least_four


class RaggedCache:
    """Places for the keys and values of tokens, and which of them are free."""

    def __init__(self, config: EncoderConfig, n_places: int, like: Tensor) -> None:
        """Room for `n_places` tokens in every layer, of the type and on the device of `like`."""
        n_heads = config.num_attention_heads
        shape = (config.num_hidden_layers, n_places, 2, n_heads, config.hidden_size // n_heads)
        self.key_values = like.new_empty(shape)
        """`[layers, places, 2, heads, head size]`."""
        self._free = [(0, n_places)]

    def take(self, n_places: int) -> int | None:
        """The first of so many neighbouring places, which are no longer free; None where there are none."""
        for index, (first, n_free) in enumerate(self._free):
            if n_free >= n_places:
                left = (first + n_places, n_free - n_places)
                self._free[index : index + 1] = [left] if left[1] else []
                return first
        return None

    def give_back(self, first: int, n_places: int) -> None:
        """These places are free again."""
        insort(self._free, (first, n_places))
        merged = self._free[:1]
        for start, length in self._free[1:]:
            before, n_before = merged[-1]
            if before + n_before == start:
                merged[-1] = (before, n_before + length)
            else:
                merged.append((start, length))
        self._free = merged


@dataclass(frozen=True)
class Span:
    """Where a row lies in the cache.

    first: its first place.
    n_tokens: how many it has, with those that the coming pass reads.
    n_counted: how many of those that are read already count for positions: see `Embeddings.positions`.
    """

    first: int
    n_tokens: int
    n_counted: int = 0


@dataclass(frozen=True)
class DecodingLayout:
    """Rows that read one more token each, over what the cache has of them; then prompts, packed, which go into it.

    Each row attends to its own tokens in a call of its own (CPU) or in one variable-length kernel (CUDA): no padding
    is computed, and what comes out does not depend on the neighbours.
    """

    cache: RaggedCache
    places: Tensor
    """int64 `[tokens]`, where keys and values of the tokens of this pass go."""
    running: Sequence[Span]
    """Rows that read one token, by their first places."""
    prompts: PackedLayout | None
    bounds: tuple[Tensor, Tensor]
    """int32 `[running + 1]`: where the query of each row lies, and its slot, which reaches to where the next begins."""
    n_used: Tensor
    """int32 `[running]`, tokens in each slot."""

    @classmethod
    def of(
        cls, cache: RaggedCache, running: Sequence[Span], prompts: Sequence[Span], device: torch.device
    ) -> DecodingLayout:
        """For the new tokens of `running`, in this order, then all tokens of `prompts`."""
        slots = [*(span.first for span in running), cache.key_values.shape[1]]
        if any(first >= following for first, following in pairwise(slots)):
            raise ValueError("running rows are not in the order of their places")
        steps = torch.tensor([span.first + span.n_tokens - 1 for span in running], dtype=torch.long)
        ranges = [torch.arange(span.first, span.first + span.n_tokens) for span in prompts]
        lengths = [span.n_tokens for span in prompts]
        packed = PackedLayout.from_lengths(lengths, device, is_causal=True) if prompts else None
        bounds = torch.arange(len(slots), dtype=torch.int32), torch.tensor(slots, dtype=torch.int32)
        n_used = torch.tensor([span.n_tokens for span in running], dtype=torch.int32)
        return cls(
            cache,
            torch.cat([steps, *ranges]).to(device),
            running,
            packed,
            (bounds[0].to(device), bounds[1].to(device)),
            n_used.to(device),
        )

    def count(self, is_counted: Tensor) -> Tensor:
        """See `Layout.count`."""
        n_steps = len(self.running)
        before = torch.tensor([span.n_counted for span in self.running], dtype=torch.long, device=is_counted.device)
        steps = before + is_counted[:n_steps].long()
        return steps if self.prompts is None else torch.cat([steps, self.prompts.count(is_counted[n_steps:])])

    def attend(self, qkv: Tensor, n_heads: int, dropout: float, layer: int) -> Tensor:
        """See `Layout.attend`."""
        n_tokens, n_steps, width = len(qkv), len(self.running), qkv.shape[1] // 3
        key_values = self.cache.key_values[layer]
        key_values.index_copy_(0, self.places, qkv[:, width:].view(n_tokens, 2, n_heads, -1))
        mixed = qkv.new_empty(n_tokens, width)
        if n_steps:
            queries = qkv[:n_steps, :width].view(n_steps, n_heads, -1)
            keys, values = key_values.unbind(1)
            attend = self._attend_varlen if qkv.device.type == "cuda" else self._attend_rows
            attend(queries, keys, values, mixed[:n_steps].view(queries.shape))
        if self.prompts is not None:
            mixed[n_steps:] = self.prompts.attend(qkv[n_steps:], n_heads, dropout, layer)
        return mixed

    def attend_memory(
        self, query: Tensor, key_value: Callable[[Tensor], Tensor], n_heads: int, dropout: float, layer: int
    ) -> Tensor | None:
        """See `Layout.attend_memory`: prompts have no encoder beside them."""
        return None

    def _attend_rows(self, queries: Tensor, keys: Tensor, values: Tensor, mixed: Tensor) -> None:
        """`queries` and `mixed` `[rows, heads, head size]`, `keys` and `values` `[places, heads, head size]`."""
        for row, span in enumerate(self.running):
            places = slice(span.first, span.first + span.n_tokens)
            k, v = keys[places].transpose(0, 1)[None], values[places].transpose(0, 1)[None]
            q = at_least_four(queries[row, None, :, None])
            mixed[row] = scaled_dot_product_attention(q, k, v)[0, :, 0]

    def _attend_varlen(self, queries: Tensor, keys: Tensor, values: Tensor, mixed: Tensor) -> None:
        # Imported here: absent from CPU-only builds of old torch.
        from torch.nn.attention.varlen import varlen_attn

        longest = max(span.n_tokens for span in self.running)
        # One split: the same bits for a row whatever shares its batch.
        found: Any = varlen_attn(queries, keys, values, *self.bounds, 1, longest, seqused_k=self.n_used, num_splits=1)
        mixed.copy_(cast(Tensor, found))
