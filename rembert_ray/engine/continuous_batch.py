"""Rows that a causal model continues token by token: they leave as they end, and waiting ones take their places.

Each turn reads one more token of every running row and the prompts that have found room, then chooses a token for each
of them from one product with the vocabulary. It must not know where prompts come from or what a failure means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rembert_ray.engine.budget import choose_batch_tokens
from rembert_ray.engine.packing import pack
from rembert_ray.engine.ragged_cache import DecodingLayout, RaggedCache, Span
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.heads import ForCausalLM
from rembert_ray.models.sampling import adjust_for_sampling, draw, penalize_repetition
from rembert_ray.watchdog import beat

# Logits of so many rows exist at once: 128 MB for 250,300 pieces in float32.
LOGIT_ROWS = 128


@dataclass
class Row:
    """A prompt and what was chosen after it.

    index: of the prompt.
    prompt: int64 `[tokens]`.
    generator: its random numbers; None where nothing is drawn.
    first: its first place in the cache, once it runs.
    n_counted: of its tokens that were read, those that count for positions.
    new_ids: what was chosen so far.
    stopped: whether the last of them is a stop id.
    """

    index: int
    prompt: NDArray[np.int64]
    generator: torch.Generator | None = None
    first: int = -1
    n_counted: int = 0
    new_ids: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def span(self) -> Span:
        """Where its tokens are, the last chosen one included."""
        return Span(self.first, len(self.prompt) + len(self.new_ids), self.n_counted)


class ContinuousBatch:
    """One run over many rows with one cache.

    Args:
        model: in evaluation mode, on `device`.
        options: how to continue: greedily or by sampling.
        stop_ids: int64 `[n]`, on `device`.
        n_places: tokens that the cache holds: at least the longest prompt and `max_new_tokens`.
        device: where the model is.
    """

    def __init__(
        self, model: ForCausalLM, options: GenerationOptions, stop_ids: Tensor, n_places: int, device: torch.device
    ) -> None:
        self.model = model
        self.options = options
        self.stop_ids = stop_ids
        self.device = device
        self.pass_tokens = choose_batch_tokens(model.encoder, device)
        self.cache = RaggedCache(model.config, n_places, model.encoder.embeddings.word.weight)
        self.n_passes = 0

    def run(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Each row once it has ended.

        Longest first is the best order: who waits then fits into the place of whoever leaves.
        """
        stops = set(self.stop_ids.tolist())
        waiting, running = deque(rows), list[Row]()
        while waiting or running:
            joining = self._admit(waiting)
            running, hidden = self._read(running, joining)
            for row, token in zip(running, self._choose(running, hidden), strict=True):
                row.new_ids.append(token)
                row.stopped = token in stops
            for row in running:
                if self._has_ended(row):
                    self.cache.give_back(row.first, self._n_places(row))
                    yield row
            running = [row for row in running if not self._has_ended(row)]

    def _has_ended(self, row: Row) -> bool:
        return row.stopped or len(row.new_ids) == self.options.max_new_tokens

    def _n_places(self, row: Row) -> int:
        return len(row.prompt) + self.options.max_new_tokens

    def _admit(self, waiting: deque[Row]) -> list[Row]:
        """Take rows from the front of those that wait, as long as there is room."""
        joining: list[Row] = []
        while waiting and (first := self.cache.take(self._n_places(waiting[0]))) is not None:
            waiting[0].first = first
            joining.append(waiting.popleft())
        return joining

    def _read(self, running: list[Row], joining: list[Row]) -> tuple[list[Row], Tensor]:
        """The last token of running rows and whole prompts: all rows, and the last hidden state of each."""
        running = sorted(running, key=lambda row: row.first)
        lengths = np.array([len(row.prompt) for row in joining], np.int64)
        batches = [[joining[index] for index in batch] for batch in pack(lengths, self.pass_tokens)] or [[]]
        first, *others = batches
        hidden = [self._pass(running, first), *(self._pass([], prompts) for prompts in others)]
        return [*running, *chain.from_iterable(batches)], torch.cat(hidden)

    def _pass(self, running: Sequence[Row], prompts: Sequence[Row]) -> Tensor:
        """One forward pass: the last hidden state of each row, `[rows, hidden]`."""
        beat()
        new = np.array([row.new_ids[-1] for row in running], np.int64)
        ids = torch.from_numpy(np.concatenate([new, *(row.prompt for row in prompts)])).to(self.device)
        layout = DecodingLayout.of(
            self.cache, [row.span for row in running], [row.span for row in prompts], self.device
        )
        hidden = self.model.encoder.encode(ids, torch.zeros_like(ids), layout)
        self.n_passes += 1
        for row, token in zip(running, new.tolist(), strict=True):
            row.n_counted += self._count([token])
        for row in prompts:
            row.n_counted = self._count(row.prompt)
        ends = np.cumsum([1] * len(running) + [len(row.prompt) for row in prompts]) - 1
        return hidden[torch.from_numpy(ends).to(self.device)]

    def _count(self, ids: Sequence[int] | NDArray[np.int64]) -> int:
        """How many of these count for positions: see `Embeddings.positions`."""
        config = self.model.config
        return int((np.asarray(ids) != config.pad_token_id).sum()) if config.positions_skip_padding else len(ids)

    def _choose(self, rows: Sequence[Row], hidden: Tensor) -> Iterator[int]:
        """The next token of each row."""
        for start in range(0, len(rows), LOGIT_ROWS):
            part = rows[start : start + LOGIT_ROWS]
            logits = self._adjust(part, self.model.head(hidden[start : start + LOGIT_ROWS]))
            if self.options.do_sample:
                generators = [row.generator for row in part if row.generator is not None]
                chosen = draw(adjust_for_sampling(logits.float(), self.options), generators)
            else:
                chosen = logits.argmax(-1)
            yield from chosen.tolist()

    def _adjust(self, rows: Sequence[Row], logits: Tensor) -> Tensor:
        """The repetition penalty, and no stop id before `min_new_tokens`."""
        options = self.options
        if options.repetition_penalty != 1:
            ids, mask = _padded([np.concatenate([row.prompt, row.new_ids]).astype(np.int64) for row in rows])
            ids, mask = ids.to(self.device), mask.to(self.device)
            logits = penalize_repetition(logits.float(), ids, mask, options.repetition_penalty)
        is_early = [len(row.new_ids) < options.min_new_tokens for row in rows]
        if any(is_early) and len(self.stop_ids):
            early = torch.tensor(is_early, device=self.device).nonzero()
            logits[early, self.stop_ids] = -torch.inf
        return logits


def _padded(rows: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, int64 `[rows, longest]`."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
