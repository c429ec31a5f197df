"""bfloat16: as near to the float32 results as `transformers` is, in every layout.

A bfloat16 has 8 significant bits, so each rounding is off by up to 2^-9 of the number. Two implementations that add in
another order differ from each other by as much as each differs from float32: both are therefore compared with float32,
by the root mean square of the difference over that of the result. For these models it is 1 to 3 % (up to 5 % for
multiple choice, whose result is a single small number a row). `TOLERANCE` bounds the mean over several random models;
and ours may not be further off than theirs by more than `MARGIN`, which is chance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from rembert_ray.models.layout import PackedLayout
from tests.parity.oracle import Pair, each_class, each_family, make_pair, random_ids, random_mask, with_choices

TOLERANCE = 0.03
MARGIN = 1.3
SEEDS = range(6)
Run = Callable[[torch.nn.Module], torch.Tensor]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    error = ((found.float() - expected).square().mean() / expected.square().mean()).sqrt()
    assert error.isfinite()
    return float(error)


def pairs_of(name: str, **values: object) -> list[Pair]:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}
    return [make_pair(name, seed, **sizes, **values) for seed in SEEDS]


def assert_as_near_as_hugging_face(pairs: list[Pair], run: Callable[[Pair], tuple[Run, Run]]) -> None:
    """`run` gives for a pair what to do with our model and with theirs, to get the same tensor from both."""
    ours, theirs = [], []
    for pair in pairs:
        run_ours, run_theirs = run(pair)
        exact = run_theirs(pair.theirs)
        theirs.append(relative_error(run_theirs(copy.deepcopy(pair.theirs).bfloat16()), exact))
        ours.append(relative_error(run_ours(copy.deepcopy(pair.ours).bfloat16()), exact))
    mean_of_ours, mean_of_theirs = sum(ours) / len(ours), sum(theirs) / len(theirs)
    assert 0 < mean_of_ours <= TOLERANCE
    assert mean_of_ours <= MARGIN * mean_of_theirs


@each_class
@torch.no_grad()
def test_padded(name):
    def run(pair: Pair) -> tuple[Run, Run]:
        given = {"input_ids": random_ids(pair, 6, 9), "attention_mask": random_mask(6, 9, "right")}
        if pair.is_multiple_choice:
            given = with_choices(given)
        return (lambda model: model(**given)[0],) * 2

    assert_as_near_as_hugging_face(pairs_of(name), run)


@each_family
@torch.no_grad()
def test_packed(family):
    def run(pair: Pair) -> tuple[Run, Run]:
        lengths = [9, 5, 5, 1]
        rows = [random_ids(pair, length) for length in lengths]
        ids, layout = torch.cat(rows), PackedLayout.from_lengths(lengths, torch.device("cpu"))
        return (
            lambda model: model.encoder.encode(ids, torch.zeros_like(ids), layout),
            lambda model: torch.cat([model(row[None]).last_hidden_state[0] for row in rows]),
        )

    assert_as_near_as_hugging_face(pairs_of(f"{family}Model"), run)


@each_family
@torch.no_grad()
def test_cached(family):
    def run(pair: Pair) -> tuple[Run, Run]:
        ids, memory = random_ids(pair, 3, 6), torch.randn(3, 4, 32)

        def token_by_token(model: torch.nn.Module) -> torch.Tensor:
            cache, logits, hidden = None, [], memory.to(model.dtype)
            for token in ids.split(1, dim=1):
                output = model(token, past_key_values=cache, encoder_hidden_states=hidden)
                cache = output.past_key_values
                logits.append(output.logits)
            return torch.cat(logits, dim=1)

        return (token_by_token,) * 2

    assert_as_near_as_hugging_face(pairs_of(f"{family}ForCausalLM", is_decoder=True, add_cross_attention=True), run)
