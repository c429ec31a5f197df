"""Beam search: the most probable continuations instead of the most probable next tokens.

Hugging Face's variant, token for token: of a row's `(1 + stop ids) * beams` best candidates the first `beams` may
finish, and the best that do not end go on, so that there are always `beams` of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from rembert_ray.models.continuation import Continuation
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.sampling import adjust
from rembert_ray.watchdog import beat


class Hypotheses:
    """The best finished continuations of each prompt, best first; a free place scores -inf."""

    def __init__(self, n_prompts: int, options: GenerationOptions, padding: int, device: torch.device) -> None:
        places = (n_prompts, options.num_beams)
        self.options = options
        self.padding = padding
        self.scores = torch.full(places, -torch.inf, dtype=torch.float32, device=device)
        self.lengths = torch.zeros(places, dtype=torch.long, device=device)
        self.ids = torch.full((*places, options.max_new_tokens), padding, device=device)

    def add(self, prompts: Tensor, ids: Tensor, scores: Tensor) -> None:
        """Take in what scores better than what is there.

        Args:
            prompts: `[n]`, which ones.
            ids: `[n, candidates, length]`, new tokens only.
            scores: `[n, candidates]`; -inf for one that has not ended.
        """
        n_new = ids.shape[2]
        padded = pad(ids, (0, self.options.max_new_tokens - n_new), value=self.padding)
        lengths = torch.full_like(scores, n_new, dtype=torch.long)
        merged = torch.cat([self.scores[prompts], scores], 1)
        self.scores[prompts], best = merged.topk(self.options.num_beams)
        self.lengths[prompts] = torch.cat([self.lengths[prompts], lengths], 1).gather(1, best)
        self.ids[prompts] = torch.cat([self.ids[prompts], padded], 1).take_along_dim(best[:, :, None], 1)

    def are_final(self, prompts: Tensor, best_running: Tensor, n_new: int) -> Tensor:
        """Whether nothing better is expected of these prompts, as `early_stopping` says: bool `[n]`.

        `best_running` is the log-probability `[n]` of the best hypothesis that goes on, `n_new` its length.
        """
        worst = self.scores[prompts].amin(1)
        is_full = worst > -torch.inf
        early_stopping, length_penalty = self.options.early_stopping, self.options.length_penalty
        if early_stopping is True:
            return is_full
        is_better_when_long = early_stopping == "never" and length_penalty > 0
        length = self.options.max_new_tokens if is_better_when_long else n_new
        is_hopeless: Tensor = best_running / length**length_penalty <= worst
        return is_full & is_hopeless

    def best(self) -> Tensor:
        """`[prompts * num_return_sequences, longest]`, new tokens only, padded."""
        n_best = self.options.num_return_sequences
        longest = int(self.lengths[:, :n_best].max())
        return self.ids[:, :n_best, :longest].flatten(0, 1)


def n_candidates(options: GenerationOptions, n_stop_ids: int) -> int:
    """Candidates of a prompt and step: enough that `num_beams` of them do not end."""
    return max(2, 1 + n_stop_ids) * options.num_beams


def search_beams(rows: Continuation, options: GenerationOptions, stop_ids: Tensor, padding: int) -> Tensor:
    """The best continuations of each prompt.

    Args:
        rows: the prompts, one row each; used up.
        options: of these the length, the penalties, the beams and how many to return.
        stop_ids: `[n]`.
        padding: what follows the end of a continuation.

    Returns:
        `[prompts * num_return_sequences, longest]`, new tokens only, best first for each prompt.
    """
    (n_prompts, n_prompt_tokens), device = rows.ids.shape, rows.ids.device
    found = Hypotheses(n_prompts, options, padding, device)
    prompts = torch.arange(n_prompts, device=device)
    # Of what runs, best first: in the first step the bare prompt, then `num_beams` hypotheses.
    scores = torch.zeros(n_prompts, 1, dtype=torch.float32, device=device)
    for n_new in range(1, options.max_new_tokens + 1):
        beat()
        candidates, parents, tokens = _extend(rows, scores, n_new, options, stop_ids)
        is_last_step = n_new == options.max_new_tokens
        ends = torch.isin(tokens, stop_ids) | is_last_step
        ids = torch.cat([rows.ids[:, n_prompt_tokens:][parents], tokens[:, :, None]], 2)
        finished = (candidates / n_new**options.length_penalty).masked_fill(~ends, -torch.inf)
        found.add(prompts, ids[:, : options.num_beams], finished[:, : options.num_beams])
        scores, kept = candidates.masked_fill(ends, -torch.inf).topk(options.num_beams)
        staying = (~found.are_final(prompts, scores[:, 0], n_new)).nonzero()[:, 0]
        if is_last_step or not len(staying):
            break
        prompts, scores = prompts[staying], scores[staying]
        rows.select_rows(parents.gather(1, kept)[staying].flatten())
        rows.append(tokens.gather(1, kept)[staying].flatten())
    return found.best()


def _extend(
    rows: Continuation, scores: Tensor, n_new: int, options: GenerationOptions, stop_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of each prompt, best first: log-probability, row and next token, `[prompts, candidates]`."""
    n_prompts, n_running = scores.shape
    logits = rows.next_logits().log_softmax(-1)
    logits = adjust(logits, rows.ids, rows.mask, n_new - 1, stop_ids, options)
    size = logits.shape[-1]
    totals = logits.view(n_prompts, n_running, size) + scores[:, :, None]
    candidates, places = totals.flatten(1).topk(n_candidates(options, len(stop_ids)))
    first_rows = torch.arange(n_prompts, device=scores.device)[:, None] * n_running
    return candidates, first_rows + places // size, places % size
