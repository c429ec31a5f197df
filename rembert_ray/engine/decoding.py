"""Continues the prompts of a shard with a causal model: equal ones once, within the memory, each failure its own.

Greedy and sampled rows run in a `ContinuousBatch`. Beams run in padded batches of their own, which nobody joins. It
must not choose tokens: that is the business of `models.sampling` and `models.beam_search`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from rembert_ray.engine.continuous_batch import ContinuousBatch, Row
from rembert_ray.engine.packing import Long, WindowTable, find_equal
from rembert_ray.engine.runner import RunFacts, RunResult
from rembert_ray.models.beam_search import search_beams
from rembert_ray.models.continuation import Continuation
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.heads import ForCausalLM

# Tokens that the cache of a running batch may hold: 64 rows of 256 on CPU; 7 GiB for a full-size model on a GPU.
CPU_CACHE_TOKENS = 64 * 256
CUDA_CACHE_TOKENS = 200 * 256
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
        needs = [len(rows.prompts[row]) + self.options.max_new_tokens for row in waiting]
        largest = needs[0] * self.options.num_beams
        n_wanted = sum(needs) if self.options.num_beams == 1 else largest * len(waiting)
        budget = min(max(self.cache_tokens, largest), n_wanted)
        try:
            if self.options.num_beams > 1:
                n_at_once = budget // largest
                for first in range(0, len(waiting), n_at_once):
                    self._run_beams(rows, waiting[first : first + n_at_once], facts)
            else:
                self._run_rows(rows, waiting, budget, facts)
        except torch.OutOfMemoryError:
            if budget == largest:
                raise
            self.cache_tokens = max(budget // 2, largest)
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

    def _run_rows(self, rows: _Rows, indices: list[int], n_places: int, facts: RunFacts) -> None:
        draws = self.options.do_sample
        prompts = [(index, rows.prompts[index]) for index in indices]
        waiting = [Row(index, prompt, self.generator(prompt) if draws else None) for index, prompt in prompts]
        batch = ContinuousBatch(self.model, self.options, self.stop_ids, n_places, self.device)
        for row in batch.run(waiting):
            rows.new_ids[row.index, : len(row.new_ids)] = row.new_ids
            rows.n_new[row.index] = len(row.new_ids)
            rows.stopped[row.index] = row.stopped
        facts.n_batches += batch.n_passes

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
