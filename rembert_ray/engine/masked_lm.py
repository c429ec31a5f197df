"""What a masked language model says: the best tokens at kept positions, and pseudo-log-likelihoods of whole texts.

A runner brings the hidden states of the kept positions of many batches, and only then, in large pieces, the vocabulary
is multiplied with them: small products with 250,000 tokens would be slow.
It must not know tasks, columns or text.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rembert_ray.engine.device_batch import DeviceBatch, Reads
from rembert_ray.engine.packing import Long, WindowTable, find_equal
from rembert_ray.engine.runner import Encoder, RunFacts, Runner, RunResult
from rembert_ray.engine.vocabulary import SlicedVocabulary
from rembert_ray.ragged import ragged_arange

# Bounds the hidden states that are in memory at once: 150 MB for vectors of 1,152 numbers.
KEPT_TOKENS = 32_768
# Bounds the masked copies that are in memory at once: 17 MB of ids for windows of 512 tokens.
MASKED_WINDOWS = 8192
SCORE, TOKEN = "score", "token"
LOG_PROBABILITY = "log_probability"


class KeptHidden:
    """A head that only hands on the hidden states of the kept tokens."""

    token_values = frozenset({"hidden"})
    reads: Reads = "kept"

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> dict[str, Tensor]:
        """`hidden` float32 `[kept, hidden]`, of hidden states `[kept, hidden]`."""
        return {"hidden": hidden.float()}


class MaskFiller:
    """An engine (see `engine.runner.Engine`): the most probable tokens at every kept position.

    Args:
        encoder: in evaluation mode, on `device`.
        vocabulary: of the model's head, on `device`.
        top_k: tokens of each position.
        targets: the only tokens that can be among them; None for all.
        device: where both are.
        batch_tokens: token budget of one forward pass; None takes the device's default.
    """

    token_values = frozenset({SCORE, TOKEN})

    def __init__(
        self,
        encoder: Encoder,
        vocabulary: SlicedVocabulary,
        top_k: int,
        targets: list[int] | None,
        device: torch.device,
        batch_tokens: int | None,
    ) -> None:
        self.runner = Runner(encoder, KeptHidden(), device, batch_tokens)
        self.vocabulary = vocabulary
        self.top_k = top_k if targets is None else min(top_k, len(targets))
        self.targets = None if targets is None else torch.tensor(targets, device=device)
        self.device = device

    def run(self, table: WindowTable) -> RunResult:
        """`score` float32 (a probability among all tokens) and `token` int32, both `[kept, top_k]`, the best first.

        See `Runner.run` for errors.
        """
        kinds, inverse = find_equal(table)
        distinct = table.take(kinds)
        splits = distinct.kept_splits
        values = {
            SCORE: np.zeros((splits[-1], self.top_k), np.float32),
            TOKEN: np.zeros((splits[-1], self.top_k), np.int32),
        }
        failures: dict[int, str] = {}
        facts = RunFacts(n_windows=len(table), n_tokens=len(table.ids))
        for start, end in itertools.pairwise(_bounds(splits, KEPT_TOKENS)):
            result = self.runner.run(distinct.take(np.arange(start, end)))
            failures |= {start + index: reason for index, reason in result.failures.items()}
            _add_computed(facts, result.facts)
            if "hidden" in result.values:
                started = time.perf_counter()
                part = slice(splits[start], splits[end])
                values[SCORE][part], values[TOKEN][part] = self._best(result.values["hidden"])
                facts.forward_s += time.perf_counter() - started
        facts.batch_tokens = self.runner.batch_tokens
        return _spread(values, failures, facts, splits, inverse)

    @torch.inference_mode()
    def _best(self, hidden: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Probabilities and tokens at positions with these hidden states `[n, hidden]`."""
        on_device = _like_weights(hidden, self.vocabulary, self.device)
        if self.targets is None:
            scores, tokens = self.vocabulary.best(on_device, self.top_k)
        else:
            of_targets = self.vocabulary.log_probabilities(on_device, self.targets.expand(len(hidden), -1))
            scores, index = of_targets.topk(self.top_k)
            tokens = self.targets[index]
        return scores.exp().cpu().numpy(), tokens.to(torch.int32).cpu().numpy()


class PseudoLikelihood:
    """An engine (see `engine.runner.Engine`): the log-probability of every kept token when it alone is masked.

    Their sum is the pseudo-log-likelihood of a text (Salazar et al. 2020, arXiv:1910.14659). A window with n kept
    tokens becomes n masked windows here, on the machine of the device, so that they never travel. Equal masked windows
    are computed once, whatever the token was that the mask hides: a runner brings hidden states, and only then the
    hidden token's log-probability is taken.

    Args:
        encoder: in evaluation mode, on `device`.
        vocabulary: of the model's head, on `device`.
        mask_id: of the mask token.
        device: where both are.
        batch_tokens: token budget of one forward pass; None takes the device's default.
    """

    token_values = frozenset({LOG_PROBABILITY})

    def __init__(
        self,
        encoder: Encoder,
        vocabulary: SlicedVocabulary,
        mask_id: int,
        device: torch.device,
        batch_tokens: int | None,
    ) -> None:
        self.runner = Runner(encoder, KeptHidden(), device, batch_tokens)
        self.vocabulary = vocabulary
        self.mask_id = mask_id
        self.device = device

    def run(self, table: WindowTable) -> RunResult:
        """`log_probability` float32 for each kept token; facts count masked windows. See `Runner.run` for errors."""
        kinds, inverse = find_equal(table)
        distinct = table.take(kinds)
        window_of = np.repeat(np.arange(len(distinct)), np.diff(distinct.kept_splits))
        log_probabilities = np.zeros(len(window_of), dtype=np.float32)
        failures: dict[int, str] = {}
        facts = RunFacts(n_windows=len(table.kept), n_tokens=int((table.lengths * np.diff(table.kept_splits)).sum()))
        for start in range(0, len(window_of), MASKED_WINDOWS):
            part = slice(start, start + MASKED_WINDOWS)
            masked, hidden_ids = mask_each(distinct, window_of[part], distinct.kept[part], self.mask_id)
            result = self.runner.run(masked)
            failures |= {int(window_of[start + index]): reason for index, reason in result.failures.items()}
            _add_computed(facts, result.facts)
            if "hidden" in result.values:
                started = time.perf_counter()
                log_probabilities[part] = self._log_probabilities(result.values["hidden"], hidden_ids)
                facts.forward_s += time.perf_counter() - started
        facts.batch_tokens = self.runner.batch_tokens
        return _spread({LOG_PROBABILITY: log_probabilities}, failures, facts, distinct.kept_splits, inverse)

    @torch.inference_mode()
    def _log_probabilities(self, hidden: NDArray[np.generic], ids: Long) -> NDArray[np.float32]:
        """Of the tokens `ids` `[n]` at positions with these hidden states `[n, hidden]`."""
        on_device = _like_weights(hidden, self.vocabulary, self.device)
        found = self.vocabulary.log_probabilities(on_device, torch.from_numpy(ids).to(self.device)[:, None])
        return cast(NDArray[np.float32], found.squeeze(1).cpu().numpy())


def mask_each(
    table: WindowTable, windows: Long, positions: NDArray[np.integer], mask_id: int
) -> tuple[WindowTable, Long]:
    """Copies of windows in each of which one token is masked and kept.

    Args:
        table: the windows.
        windows: int64 `[n]`, the window of each copy.
        positions: int `[n]`, the position in its window of the token to mask.
        mask_id: of the mask token.

    Returns:
        The n copies, and the ids int64 `[n]` that the masks hide.
    """
    copies = table.take(windows)
    masked = copies.starts[:-1] + positions
    hidden_ids = copies.ids[masked].astype(np.int64)
    copies.ids[masked] = mask_id
    kept_splits = np.arange(len(windows) + 1, dtype=np.int64)
    return replace(copies, kept=positions.astype(np.int32), kept_splits=kept_splits), hidden_ids


def _like_weights(hidden: NDArray[np.generic], vocabulary: SlicedVocabulary, device: torch.device) -> Tensor:
    """On the device, in the type of the head."""
    return torch.from_numpy(hidden).to(device, next(vocabulary.parameters()).dtype)


def _bounds(kept_splits: Long, n_tokens: int) -> list[int]:
    """Bounds between windows, first and last included, with about `n_tokens` kept tokens between two of them."""
    cuts = np.searchsorted(kept_splits, np.arange(0, kept_splits[-1], n_tokens))
    return sorted({0, *cuts.tolist(), len(kept_splits) - 1})


def _spread(
    values: dict[str, NDArray[np.generic]], failures: dict[int, str], facts: RunFacts, kept_splits: Long, inverse: Long
) -> RunResult:
    """From the kept tokens of distinct windows, bounded by `kept_splits`, back to those of all windows."""
    tokens = ragged_arange(kept_splits[:-1][inverse], np.diff(kept_splits)[inverse])
    failed = {window: failures[int(kind)] for window, kind in enumerate(inverse) if int(kind) in failures}
    return RunResult({name: value[tokens] for name, value in values.items()}, failed, facts)


def _add_computed(total: RunFacts, part: RunFacts) -> None:
    total.n_windows_computed += part.n_windows_computed
    total.n_tokens_computed += part.n_tokens_computed
    total.n_batches += part.n_batches
    total.forward_s += part.forward_s
    total.wait_s += part.wait_s
