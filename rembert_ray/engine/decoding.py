"""Continues prompts with a causal model: rows leave the batch as they finish, and waiting ones take their places.

Which token is chosen is the business of `models.sampling` and `models.beam_search`; this file keeps the batch full.
Beams run in batches of their own, which nobody joins.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rembert_ray.engine.packing import Long, WindowTable, find_equal
from rembert_ray.engine.runner import RunFacts, RunResult
from rembert_ray.models.beam_search import search_beams
from rembert_ray.models.continuation import Continuation
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.heads import ForCausalLM
from rembert_ray.models.sampling import adjust_for_sampling, draw, penalize_repetition

# Tokens that the cache of a running batch may hold: 64 rows of 256 on CPU; 7 GiB for a full-size model on a GPU.
CPU_CACHE_TOKENS = 64 * 256
CUDA_CACHE_TOKENS = 200 * 256
# New rows are read when so large a part of the batch is free: each reading is a forward pass of its own.
JOINING_SHARE = 0.25
NO_TOKEN = -1


@dataclass
class _Rows:
    """What is known of every prompt: its tokens so far, `NO_TOKEN` after the last, and whether a stop id ended it."""

    prompts: list[NDArray[np.int64]]
    new_ids: NDArray[np.int32]
    n_new: Long
    stopped: NDArray[np.bool_]
    failures: dict[int, str] = field(default_factory=dict)


class Decoder:
    """One causal model on one device.

    Args:
        model: in evaluation mode, on `device`.
        options: how to continue; one sequence for each prompt.
        seed: for sampling. A row's own seed is made of it and of the ids of its prompt: the same text whatever its
            batch mates and its shard.
        device: where the model is.
        cache_tokens: what the cache of a running batch may hold; None takes the device's default.
    """

    token_values: Container[str] = frozenset()

    def __init__(
        self,
        model: ForCausalLM,
        options: GenerationOptions,
        seed: int,
        device: torch.device,
        cache_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.seed = seed
        self.device = device
        default = CUDA_CACHE_TOKENS if device.type == "cuda" else CPU_CACHE_TOKENS
        self.cache_tokens = cache_tokens or default
        self.stop_ids = torch.tensor(options.stop_ids(model.config), dtype=torch.long, device=device)

    def run(self, table: WindowTable) -> RunResult:
        """Continue every prompt once, equal ones together.

        Returns:
            `ids` int32 `[windows, max_new_tokens]` (`NO_TOKEN` after the end), `n_new` int32 and `stopped` bool
            `[windows]`.
        """
        started = time.perf_counter()
        kinds, inverse = find_equal(table)
        distinct = table.take(kinds)
        facts = RunFacts(len(table), len(table.ids), len(kinds), len(distinct.ids))
        rows = _Rows(
            [part.astype(np.int64) for part in np.split(distinct.ids, distinct.starts[1:-1])],
            np.full((len(kinds), self.options.max_new_tokens), NO_TOKEN, np.int32),
            np.zeros(len(kinds), np.int64),
            np.zeros(len(kinds), np.bool_),
        )
        # Longest first: neighbours have equal lengths, and what does not fit the memory shows at once.
        waiting = np.argsort(-distinct.lengths, kind="stable").tolist()
        with torch.inference_mode():
            while waiting:
                waiting = self._run_within_budget(rows, waiting, facts)
        facts.forward_s = time.perf_counter() - started
        values = {"ids": rows.new_ids, "n_new": rows.n_new.astype(np.int32), "stopped": rows.stopped}
        failures = {w: rows.failures[int(kind)] for w, kind in enumerate(inverse) if int(kind) in rows.failures}
        return RunResult({name: value[inverse] for name, value in values.items()}, failures, facts)

    def _run_within_budget(self, rows: _Rows, waiting: list[int], facts: RunFacts) -> list[int]:
        """Continue the waiting rows; on out of memory halve the budget, and return those that are not done."""
        longest = len(rows.prompts[waiting[0]]) + self.options.max_new_tokens
        n_at_once = max(1, self.cache_tokens // (longest * self.options.num_beams))
        try:
            if self.options.num_beams > 1:
                for first in range(0, len(waiting), n_at_once):
                    self._run_beams(rows, waiting[first : first + n_at_once], facts)
            else:
                _Batch(self, rows, facts).run(list(waiting), n_at_once)
        except torch.OutOfMemoryError:
            if n_at_once == 1:
                raise
            self.cache_tokens = max(1, n_at_once // 2) * longest * self.options.num_beams
            torch.cuda.empty_cache()
        except torch.AcceleratorError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            if len(waiting) == 1:
                rows.failures[waiting[0]] = f"{type(error).__name__}: {error}".splitlines()[0]
                return []
            for row in waiting:
                if not rows.n_new[row]:
                    self._run_within_budget(rows, [row], facts)
            return []
        return [row for row in waiting if not rows.n_new[row]]

    def read(self, prompts: list[NDArray[np.int64]]) -> Continuation:
        """Prompts as rows that can be continued, with padding on the left."""
        longest = max(len(prompt) for prompt in prompts)
        padding = self.model.config.pad_token_id or 0
        ids = np.full((len(prompts), longest), padding, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        tensors = [torch.from_numpy(array).to(self.device) for array in (ids, mask)]
        return Continuation(self.model, *tensors)

    def generator(self, prompt: NDArray[np.int64]) -> torch.Generator:
        """The random numbers of a row."""
        digest = hashlib.sha256(f"{self.seed}:".encode() + prompt.tobytes()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def _run_beams(self, rows: _Rows, indices: list[int], facts: RunFacts) -> None:
        continuation = self.read([rows.prompts[index] for index in indices])
        found = search_beams(continuation, self.options, self.stop_ids, NO_TOKEN).cpu().numpy()
        facts.n_batches += found.shape[1]
        rows.new_ids[indices, : found.shape[1]] = found
        rows.n_new[indices] = (found != NO_TOKEN).sum(1)
        rows.stopped[indices] = np.isin(found, self.stop_ids.cpu().numpy()).any(1)


class _Batch:
    """The running rows of a greedy or sampling run; what it has finished is in `rows`."""

    def __init__(self, decoder: Decoder, rows: _Rows, facts: RunFacts) -> None:
        self.decoder = decoder
        self.rows = rows
        self.facts = facts
        self.running: list[int] = []
        self.generators: list[torch.Generator] = []
        self.continuation: Continuation | None = None
        self.logits: Tensor | None = None
        self.tokens: dict[int, list[int]] = {}

    def run(self, waiting: list[int], n_at_once: int) -> None:
        """Continue all rows, at most `n_at_once` at a time."""
        while waiting or self.running:
            n_free = n_at_once - len(self.running)
            if waiting and (not self.running or n_free >= n_at_once * JOINING_SHARE):
                self._join(waiting[:n_free])
                del waiting[:n_free]
            self._step()

    def _join(self, indices: list[int]) -> None:
        prompts = [self.rows.prompts[index] for index in indices]
        new = self.decoder.read(prompts)
        logits = new.next_logits()
        if self.continuation is None or self.logits is None or not self.running:
            self.continuation, self.logits = new, logits
        else:
            self.continuation.add_rows(new)
            self.logits = torch.cat([self.logits, logits])
        self.running += indices
        self.tokens |= {index: [] for index in indices}
        if self.decoder.options.do_sample:
            self.generators += [self.decoder.generator(prompt) for prompt in prompts]
        self.facts.n_batches += 1

    def _step(self) -> None:
        """One more token for every running row; then those that are finished leave."""
        options, rows = self.decoder.options, self.continuation
        assert rows is not None
        chosen = self._choose(rows)
        for index, token in zip(self.running, chosen.tolist(), strict=True):
            self.tokens[index].append(token)
        is_stop = torch.isin(chosen, self.decoder.stop_ids).tolist()
        staying = [
            place
            for place, index in enumerate(self.running)
            if not self._finish(index, is_stop=is_stop[place], limit=options.max_new_tokens)
        ]
        if len(staying) < len(self.running):
            self.running = [self.running[place] for place in staying]
            self.generators = [self.generators[place] for place in staying] if self.generators else []
            kept = torch.tensor(staying, dtype=torch.long, device=chosen.device)
            chosen = chosen[kept]
            rows.select_rows(kept)
            if staying:
                rows.drop_padding()
        if staying:
            rows.append(chosen)
            self.logits = rows.next_logits()
            self.facts.n_batches += 1

    def _choose(self, rows: Continuation) -> Tensor:
        options = self.decoder.options
        assert self.logits is not None
        logits = self.logits
        if options.repetition_penalty != 1:
            logits = penalize_repetition(logits, rows.ids, rows.mask, options.repetition_penalty)
        is_early = [len(self.tokens[index]) < options.min_new_tokens for index in self.running]
        if any(is_early) and len(self.decoder.stop_ids):
            early = torch.tensor(is_early, device=logits.device)[:, None]
            stops = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            stops[self.decoder.stop_ids] = True
            logits = logits.masked_fill(early & stops, -torch.inf)
        if not options.do_sample:
            return logits.argmax(-1)
        return draw(adjust_for_sampling(logits, options), self.generators)

    def _finish(self, index: int, *, is_stop: bool, limit: int) -> bool:
        tokens = self.tokens[index]
        if not is_stop and len(tokens) < limit:
            return False
        self.rows.new_ids[index, : len(tokens)] = tokens
        self.rows.n_new[index] = len(tokens)
        self.rows.stopped[index] = is_stop
        del self.tokens[index]
        return True
