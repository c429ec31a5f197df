"""A packed batch of which few tokens are read: the last layer asks for those alone.

Keys and values are still those of all tokens; attention, and everything of the layer that comes after it, is computed
for the tokens that are read. It serves encoders only: a decoder's tokens are read one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rembert_ray.models.layout import PackedLayout

# With fewer, the CPU's attention adds in an order that differs from call to call on several threads.
LEAST_QUERIES = 4


def at_least_four(queries: Tensor) -> Tensor:
    """Queries `[..., n, head size]` with the last one repeated up to four: then a row's bits are always the same."""
    n_missing = LEAST_QUERIES - queries.shape[-2]
    if n_missing <= 0:
        return queries
    last = queries[..., -1:, :].expand(*queries.shape[:-2], n_missing, -1)
    return torch.cat([queries, last], -2)


@dataclass(frozen=True)
class NarrowedLayout:
    """What `models.layout.Layout` asks for, with answers for `rows` only.

    packed: where all tokens lie.
    rows: int64 `[rows]` on the device, flat indices of the tokens that are read, sequence after sequence.
    cu_rows: int32 `[sequences + 1]` on the device, where those of each sequence begin in `rows`.
    most_rows: of one sequence.
    groups: runs of equal lengths and equal numbers of rows: (first token, sequences, length, first row, rows of each).
    """

    packed: PackedLayout
    rows: Tensor
    cu_rows: Tensor
    most_rows: int
    groups: tuple[tuple[int, int, int, int, int], ...]

    @classmethod
    def of(cls, packed: PackedLayout, lengths: Sequence[int], rows: Tensor, n_rows: Sequence[int]) -> NarrowedLayout:
        """Of sequences with these lengths, the tokens `rows`, `n_rows` of each sequence.

        Raises:
            ValueError: the packed layout is causal.
        """
        if packed.is_causal:
            raise ValueError("a causal layer is computed for all of its tokens")
        cu_rows = torch.zeros(len(n_rows) + 1, dtype=torch.int32)
        torch.cumsum(torch.tensor(n_rows, dtype=torch.int32), 0, out=cu_rows[1:])
        groups, token, row = [], 0, 0
        for (length, n_of_each), run in groupby(zip(lengths, n_rows, strict=True)):
            n_sequences = len(list(run))
            groups.append((token, n_sequences, length, row, n_of_each))
            token, row = token + n_sequences * length, row + n_sequences * n_of_each
        return cls(packed, rows, cu_rows.to(rows.device, non_blocking=True), max(n_rows), tuple(groups))

    def count(self, is_counted: Tensor) -> Tensor:
        """See `Layout.count`."""
        return self.packed.count(is_counted)

    def attend(self, qkv: Tensor, n_heads: int, dropout: float, layer: int) -> Tensor:
        """See `Layout.attend`; `qkv` is of all tokens, the result `[rows, hidden]`."""
        n_tokens, width = qkv.shape
        head_size = width // (3 * n_heads)
        if qkv.device.type == "cuda":
            return self._attend_varlen(qkv.view(n_tokens, 3, n_heads, head_size))
        queries = qkv[self.rows, : width // 3]
        mixed = torch.empty_like(queries)
        for token, n_sequences, length, row, n_of_each in self.groups:
            if not n_of_each:
                continue
            of_group = qkv[token : token + n_sequences * length].view(n_sequences, length, 3, n_heads, head_size)
            k, v = of_group[:, :, 1:].permute(2, 0, 3, 1, 4)
            part = slice(row, row + n_sequences * n_of_each)
            q = queries[part].view(n_sequences, n_of_each, n_heads, head_size).transpose(1, 2)
            out = scaled_dot_product_attention(at_least_four(q), k, v, dropout_p=dropout)[:, :, :n_of_each]
            mixed[part].view(n_sequences, n_of_each, n_heads, head_size).copy_(out.transpose(1, 2))
        return mixed

    def attend_memory(
        self, query: Tensor, key_value: Callable[[Tensor], Tensor], n_heads: int, dropout: float, layer: int
    ) -> Tensor | None:
        """See `Layout.attend_memory`: a packed batch has no encoder beside it."""
        return None

    def _attend_varlen(self, qkv: Tensor) -> Tensor:
        # Imported here: absent from CPU-only builds of old torch.
        from torch.nn.attention.varlen import varlen_attn

        queries, keys, values = qkv[self.rows, 0], qkv[:, 1], qkv[:, 2]
        bounds, longest = (self.cu_rows, self.packed.cu_seqlens), (self.most_rows, self.packed.max_length)
        # One split: the same bits for a sequence whatever shares its batch.
        mixed: Any = varlen_attn(queries, keys, values, *bounds, *longest, num_splits=1)
        return cast(Tensor, mixed.flatten(1))
