"""The product of hidden states with the vocabulary in bounded pieces, and pseudo-log-likelihoods of whole texts.

A row of logits is a megabyte for a vocabulary of 250,000: only positions that are asked for get one, few at a time.
It must not know tasks, columns or text.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rembert_ray.engine.packing import Long, WindowTable, find_equal
from rembert_ray.engine.runner import DeviceBatch, Encoder, RunFacts, Runner, RunResult
from rembert_ray.ragged import ragged_arange

LOGITS_BYTES = 256 * 1024**2
# Bounds the masked copies that are in memory at once: 17 MB of ids for windows of 512 tokens.
MASKED_WINDOWS = 8192
FLOAT_BYTES = 4
LOG_PROBABILITY = "log_probability"


def logits_in_pieces(head: nn.Module, hidden: Tensor, vocab_size: int) -> Iterator[Tensor]:
    """Logits float32 `[n, vocabulary]` of hidden states `[positions, hidden]`, as few rows at a time as fit 256 MiB."""
    for piece in torch.split(hidden, max(LOGITS_BYTES // (FLOAT_BYTES * vocab_size), 1)):
        yield head(piece).float()


class KeptHidden:
    """A head that only hands on the hidden states of the kept tokens."""

    token_values = frozenset({"hidden"})

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> dict[str, Tensor]:
        """`hidden` float32 `[kept, hidden]`."""
        return {"hidden": hidden[batch.kept].float()}


class PseudoLikelihood:
    """An engine (see `engine.runner.Engine`): the log-probability of every kept token when it alone is masked.

    Their sum is the pseudo-log-likelihood of a text (Salazar et al. 2020, arXiv:1910.14659). A window with n kept
    tokens becomes n masked windows here, on the machine of the device, so that they never travel. Equal masked windows
    are computed once, whatever the token was that the mask hides: a runner brings hidden states, and only then the
    hidden token's log-probability is taken.

    Args:
        encoder: in evaluation mode, on `device`.
        head: a `models.heads.LanguageModelHead`.
        vocab_size: rows of the head's last product.
        mask_id: of the mask token.
        device: where both are.
        batch_tokens: token budget of one forward pass; None takes the device's default.
    """

    token_values = frozenset({LOG_PROBABILITY})

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        vocab_size: int,
        mask_id: int,
        device: torch.device,
        batch_tokens: int | None,
    ) -> None:
        self.runner = Runner(encoder, KeptHidden(), device, batch_tokens)
        self.head = head
        self.vocab_size = vocab_size
        self.mask_id = mask_id

    def run(self, table: WindowTable) -> RunResult:
        """`log_probability` float32 for each kept token; facts count masked windows. See `Runner.run` for errors."""
        kinds, inverse = find_equal(table)
        distinct = table.take(kinds)
        n_kept = np.diff(distinct.kept_splits)
        window_of = np.repeat(np.arange(len(distinct)), n_kept)
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
        spread = log_probabilities[ragged_arange(distinct.kept_splits[:-1][inverse], n_kept[inverse])]
        failed = {window: failures[int(kind)] for window, kind in enumerate(inverse) if int(kind) in failures}
        return RunResult({LOG_PROBABILITY: spread}, failed, facts)

    def _log_probabilities(self, hidden: NDArray[np.generic], ids: Long) -> NDArray[np.float32]:
        """Of the tokens `ids` `[n]` at positions with these hidden states `[n, hidden]`."""
        weight = next(self.head.parameters())
        on_device = torch.from_numpy(hidden).to(weight.device, weight.dtype)
        wanted = torch.from_numpy(ids).to(weight.device)
        found, done = [], 0
        with torch.inference_mode():
            for logits in logits_in_pieces(self.head, on_device, self.vocab_size):
                of_token = logits.gather(-1, wanted[done : done + len(logits), None]).squeeze(-1)
                found.append(of_token - logits.logsumexp(-1))
                done += len(logits)
        return cast(NDArray[np.float32], torch.cat(found).cpu().numpy())


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


def _add_computed(total: RunFacts, part: RunFacts) -> None:
    total.n_windows_computed += part.n_windows_computed
    total.n_tokens_computed += part.n_tokens_computed
    total.n_batches += part.n_batches
    total.forward_s += part.forward_s
    total.wait_s += part.wait_s
