"""Rows that a causal model continues token by token: ids, mask and cache that belong together. No choice of tokens."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from rembert_ray.models.cache import KeyValueCache
from rembert_ray.models.checkpoint import PretrainedModel
from rembert_ray.models.layout import PaddedLayout


class Continuation:
    """Prompts, and what was chosen after them so far. The last token of every row is a real one.

    Positions are those of a row without its padding. RemBERT's count the mask, as Hugging Face's `generate` does.
    RoBERTa's are those of `forward` over the whole row (`Embeddings.positions`), so that a row means the same to
    both; Hugging Face's `generate` counts from 0 instead of `pad_token_id + 1` and leaves what was trained.
    """

    def __init__(
        self,
        model: PretrainedModel,
        ids: Tensor,
        mask: Tensor,
        token_type_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        *,
        use_cache: bool = True,
    ) -> None:
        """Args as in `Generation.generate`, with padding on the left, if any: see `move_padding_left`."""
        self.model = model
        self.ids = ids
        self.mask = mask
        self.token_type_ids = token_type_ids
        self.memory = encoder_hidden_states
        self.memory_mask = encoder_attention_mask
        self.cache = KeyValueCache() if use_cache else None
        self._has_padding = not bool(mask.all())

    def positions(self) -> Tensor:
        """Of each token, int64 `[rows, length]`; those of padding mean nothing."""
        if self.model.config.positions_skip_padding:
            return self.model.encoder.embeddings.positions(self.ids, PaddedLayout(None))
        return (self.mask.cumsum(-1) - 1).clamp(min=0)

    def next_logits(self) -> Tensor:
        """Logits of the token after each row, float32 `[rows, vocabulary]`; reads what the cache does not hold."""
        past = 0 if self.cache is None else self.cache.get_seq_length()
        output = self.model(
            self.ids[:, past:],
            attention_mask=self.mask if self._has_padding else None,
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[:, past:],
            position_ids=self.positions()[:, past:],
            encoder_hidden_states=self.memory,
            encoder_attention_mask=self.memory_mask,
            past_key_values=self.cache,
            use_cache=self.cache is not None,
            logits_to_keep=1,
            return_dict=True,
        )
        return cast(Tensor, output.logits[:, -1].float())

    def select_rows(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was; `rows` is int64 `[new rows]`."""
        if len(rows) == len(self.ids) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self.token_type_ids is not None:
            self.token_type_ids = self.token_type_ids[rows]
        if self.memory is not None:
            self.memory = self.memory[rows]
        if self.memory_mask is not None:
            self.memory_mask = self.memory_mask[rows]
        if self.cache is not None:
            self.cache.select_rows(rows)

    def append(self, tokens: Tensor) -> None:
        """One token `[rows]` to each row, of the segment of the one before it."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens[:, None])], 1)
        if self.token_type_ids is not None:
            self.token_type_ids = torch.cat([self.token_type_ids, self.token_type_ids[:, -1:]], 1)


def move_padding_left(
    ids: Tensor, mask: Tensor, token_type_ids: Tensor | None, padding: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Prompts that all end in the last column: what is masked at the end of a row goes to its start.

    Args:
        ids: `[rows, length]`; `mask` (0: masked) and `token_type_ids` likewise.
        mask: int64; no row is masked as a whole.
        token_type_ids: or None.
        padding: what takes the place of the ids that are moved, so that no rule for positions counts them.

    Returns:
        The three, moved.
    """
    length = ids.shape[1]
    n_moved = mask.flip(1).argmax(1, keepdim=True)
    columns = torch.arange(length, device=ids.device)
    sources = (columns - n_moved) % length
    ids = ids.gather(1, sources)
    if padding is not None:
        ids = ids.masked_fill(columns < n_moved, padding)
    return ids, mask.gather(1, sources), None if token_type_ids is None else token_type_ids.gather(1, sources)
