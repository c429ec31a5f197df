"""From the logits of the next token to the token: pure functions on `[rows, vocabulary]`, without a model.

Penalties and filters give what Hugging Face's logits processors give, and `adjust_for_sampling` applies them in the
same order. What they forbid is -inf.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rembert_ray.models.generation_options import GenerationOptions

MAX_SEED = 2**64 - 1


def penalize_repetition(logits: Tensor, ids: Tensor, mask: Tensor, penalty: float) -> Tensor:
    """Logits of tokens that are in the row, divided by the penalty if positive, else multiplied by it.

    Keskar et al. 2019 (arXiv:1909.05858), with the rule for negative logits of Hugging Face.

    Args:
        logits: `[rows, vocabulary]`.
        ids: `[rows, length]`, prompt and text so far.
        mask: `[rows, length]`, 0 where the row is padded: padding is no repetition.
        penalty: above 1 discourages.
    """
    n_rows, size = logits.shape
    # Padding is counted in a column of its own.
    seen = torch.zeros(n_rows, size + 1, dtype=torch.bool, device=logits.device)
    seen = seen.scatter(1, ids.masked_fill(mask == 0, size), True)[:, :size]
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def forbid(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Without the tokens `[n]`."""
    return logits.index_fill(1, token_ids, -torch.inf)


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharper distributions below 1, flatter ones above."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest of each row, and those that equal the last of them (Fan et al. 2018, arXiv:1805.04833)."""
    least = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest of each row whose probabilities reach p, at least one (Holtzman et al. 2020, arXiv:1904.09751)."""
    ascending, order = logits.sort()
    # From the least probable on, as Hugging Face adds up: the other direction rounds otherwise.
    is_tail = ascending.softmax(-1).cumsum(-1) <= 1 - p
    is_tail[:, -1] = False
    return logits.masked_fill(torch.zeros_like(is_tail).scatter(1, order, is_tail), -torch.inf)


def adjust(
    logits: Tensor, ids: Tensor, mask: Tensor, n_new: int, stop_ids: Tensor, options: GenerationOptions
) -> Tensor:
    """What holds in every mode: the repetition penalty, and no stop id before `min_new_tokens`.

    Args:
        logits: `[rows, vocabulary]`; log-probabilities in a beam search.
        ids: `[rows, length]`; `mask` likewise: see `penalize_repetition`.
        n_new: tokens since the prompt.
        stop_ids: `[n]`, on the device of the logits.
    """
    if options.repetition_penalty != 1:
        logits = penalize_repetition(logits, ids, mask, options.repetition_penalty)
    if n_new < options.min_new_tokens:
        logits = forbid(logits, stop_ids)
    return logits


def adjust_for_sampling(logits: Tensor, options: GenerationOptions) -> Tensor:
    """Temperature, then top-k, then top-p."""
    if options.temperature != 1:
        logits = scale_by_temperature(logits, options.temperature)
    if options.top_k:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p < 1:
        logits = keep_top_p(logits, options.top_p)
    return logits


def draw(logits: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """One token of each row, with the probabilities that the logits `[rows, vocabulary]` mean: int64 `[rows]`.

    Args:
        logits: -inf is never drawn.
        generators: one for each row, on the CPU, so that a row draws the same whatever its batch mates and its
            device; None draws from torch's global generator, as Hugging Face does.
    """
    probabilities = logits.softmax(-1)
    if generators is None:
        return probabilities.multinomial(1)[:, 0]
    uniform = torch.stack([torch.rand((), dtype=torch.float64, generator=generator) for generator in generators])
    up_to = probabilities.double().cumsum(-1)
    # (0, 1] of the sum, and the first token to reach it: never one of probability 0, never behind the last.
    target = (1 - uniform.to(logits.device))[:, None] * up_to[:, -1:]
    return torch.searchsorted(up_to, target)[:, 0]


def row_generators(seed: int | Sequence[int] | None, n_rows: int) -> list[torch.Generator] | None:
    """A generator for each row from its seed; from one number for all rows each draws its own; None without.

    Raises:
        ValueError: another number of seeds than rows, or a seed out of range.
    """
    if seed is None:
        return None
    if isinstance(seed, int):
        own = torch.Generator().manual_seed(_checked(seed))
        seeds: Sequence[int] = torch.randint(2**63 - 1, (n_rows,), generator=own).tolist()
    else:
        seeds = [_checked(one) for one in seed]
    if len(seeds) != n_rows:
        raise ValueError(f"{len(seeds)} seeds for {n_rows} rows: give one number, or one for each row that is returned")
    return [torch.Generator().manual_seed(one) for one in seeds]


def _checked(seed: int) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed!r} is not a whole number from 0 to 2**64 - 1")
    return seed
