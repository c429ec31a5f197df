"""`generate` against transformers, token for token, on random tiny models; and what ours promises beyond it.

Models are in float64: transformers and ours round differently, and in float32 a tie of two tokens would be a matter
of luck. Stop ids get a bonus, so that rows end at different steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.continuation import Continuation
from rembert_ray.models.rembert import RemBertForCausalLM
from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormForCausalLM

transformers = pytest.importorskip("transformers")

FAMILIES = ("rembert", "roberta")
N_IDS = 24
STOP = 2


@dataclass(frozen=True)
class Case:
    """A random model and random prompts with padding on one side."""

    family: str
    seed: int
    lengths: tuple[int, ...] = (5, 2, 7)
    padding: int = 1
    n_layers: int = 2
    stop_bonus: float = 3.0
    stop_ids: tuple[int, ...] = (STOP,)
    cross_attention: bool = False

    @property
    def settings(self):
        return {
            "vocab_size": N_IDS,
            "hidden_size": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": self.n_layers,
            "intermediate_size": 24,
            "max_position_embeddings": 40,
            "initializer_range": 0.7,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "is_decoder": True,
            "add_cross_attention": self.cross_attention,
            "pad_token_id": self.padding,
            "bos_token_id": 0,
            "eos_token_id": list(self.stop_ids),
        } | ({"input_embedding_size": 8, "output_embedding_size": 12} if self.family == "rembert" else {})

    def model(self, dtype=torch.float64):
        torch.manual_seed(self.seed)
        if self.family == "rembert":
            model = RemBertForCausalLM(RemBertConfig(**self.settings))
        else:
            model = RobertaPreLayerNormForCausalLM(RobertaPreLayerNormConfig(**self.settings))
        with torch.no_grad():
            model.head.decoder.bias.normal_()
            model.head.decoder.bias[list(self.stop_ids)] += self.stop_bonus
        return model.to(dtype).eval()

    def prompts(self, side="left"):
        torch.manual_seed(self.seed + 1)
        ids = torch.full((len(self.lengths), max(self.lengths)), self.padding)
        for row, length in enumerate(self.lengths):
            start = 0 if side == "right" else ids.shape[1] - length
            ids[row, start : start + length] = torch.randint(4, N_IDS, (length,))
        return ids, (ids != self.padding).long()

    def memory(self):
        torch.manual_seed(self.seed + 2)
        mask = torch.ones(len(self.lengths), 4, dtype=torch.long)
        mask[0, 3:] = 0
        return {
            "encoder_hidden_states": torch.randn(len(self.lengths), 4, 16, dtype=torch.float64),
            "encoder_attention_mask": mask,
        }


def oracle_of(model, case):
    """The same model in transformers."""
    if case.family == "rembert":
        oracle = transformers.RemBertForCausalLM(transformers.RemBertConfig(**case.settings))
    else:
        config = transformers.RobertaPreLayerNormConfig(**case.settings)
        oracle = transformers.RobertaPreLayerNormForCausalLM(config)
    parameters, tensors = dict(model.named_parameters()), {}
    for weight in model.weight_map():
        parts = parameters[weight.name].data.chunk(len(weight.sources))
        tensors |= {name: part.clone() for name, part in zip(weight.sources, parts, strict=True)}
    missing, unexpected = oracle.double().load_state_dict(tensors, strict=False)
    # The names under which transformers has RoBERTa's tied decoder a second time.
    assert not set(missing) - {"lm_head.decoder.weight", "lm_head.decoder.bias"}
    assert not unexpected
    return oracle.eval()


def with_positions_from_0(model, oracle, padding):
    """Make transformers' `generate`, which counts RoBERTa's positions from 0, find the vectors that `forward` takes.

    Right as long as no padding id is generated, which has no position of its own: it is made impossible.
    """
    with torch.no_grad():
        model.head.decoder.bias[padding] = oracle.lm_head.bias[padding] = oracle.lm_head.decoder.bias[padding] = -1e4
        table = oracle.roberta_prelayernorm.embeddings.position_embeddings.weight
        table.copy_(table.roll(-padding - 1, 0))


def pair(case):
    model = case.model()
    oracle = oracle_of(model, case)
    if case.family == "roberta":
        with_positions_from_0(model, oracle, case.padding)
    return model, oracle


def assert_equal_to_transformers(case, options, inputs=None):
    model, oracle = pair(case)
    ids, mask = case.prompts()
    inputs = {"attention_mask": mask, "max_new_tokens": 10} | (inputs or {}) | options
    ours = model.generate(ids, **inputs)
    theirs = oracle.generate(ids, **inputs)
    assert ours.tolist() == theirs.tolist()
    return ours[:, ids.shape[1] :]


# Padding ids above 0: transformers' beam search fills up with the stop id where padding is 0 (tested below).
cases = st.builds(
    Case,
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4).map(tuple),
    padding=st.sampled_from([1, 3]),
    n_layers=st.integers(1, 2),
    stop_bonus=st.sampled_from([0.0, 2.0, 5.0]),
    stop_ids=st.sampled_from([(STOP,), (STOP, 7), (5, STOP, 9)]),
)
common = {
    "max_new_tokens": st.integers(4, 12),
    "min_new_tokens": st.integers(0, 4),
    "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
    "use_cache": st.booleans(),
}
greedy = st.fixed_dictionaries(common)
beams = st.integers(2, 4).flatmap(
    lambda n_beams: st.fixed_dictionaries(
        common
        | {
            "num_beams": st.just(n_beams),
            "num_return_sequences": st.integers(1, n_beams),
            "length_penalty": st.sampled_from([1.0, 0.0, 2.0, 0.4, -1.0]),
            "early_stopping": st.sampled_from([True, False, "never"]),
        }
    )
)


@settings(max_examples=40)
@given(cases, greedy)
def test_greedy_equals_transformers(case, options):
    assert_equal_to_transformers(case, options)


@settings(max_examples=80)
@given(cases, beams)
def test_beam_search_equals_transformers(case, options):
    assert_equal_to_transformers(case, options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_examples_end_at_different_steps_and_at_the_limit(family, options):
    """What the two tests above go through, seen once: rows that end early, late and not at all."""
    ends = set()
    for seed in range(6):
        new_ids = assert_equal_to_transformers(Case(family, seed, padding=3, stop_bonus=3.0), options)
        ends |= {row.index(STOP) if STOP in row else None for row in new_ids.tolist()}
    assert {None} < ends
    assert len(ends) >= 4


def test_beam_search_stops_early_as_told():
    """Rows full of finished hypotheses long before the limit, of which a longer one may or may not become the best."""
    found = {True: [], False: [], "never": []}
    for early_stopping, results in found.items():
        options = {"num_beams": 2, "length_penalty": 2.0, "early_stopping": early_stopping, "max_new_tokens": 14}
        for seed in range(8):
            results.append(assert_equal_to_transformers(Case("rembert", seed), options).tolist())
    assert len({str(results) for results in found.values()}) == 3


def test_beam_search_goes_on_when_all_the_best_candidates_end():
    """Three stop ids far more probable than the rest: the two best of each of the beams end in every step."""
    for seed in range(8):
        case = Case("rembert", seed, stop_bonus=9.0, stop_ids=(5, STOP, 9))
        options = {"num_beams": 4, "num_return_sequences": 4, "early_stopping": "never", "length_penalty": 3.0}
        assert_equal_to_transformers(case, options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 0.5}])
def test_cross_attention_equals_transformers(family, use_cache, options):
    """transformers without its cache: with it, cross-attention of a decoder alone fails there (5.23, wrong shapes)."""
    for seed in range(4):
        case = Case(family, seed, padding=3, cross_attention=True)
        model, oracle = pair(case)
        ids, mask = case.prompts()
        inputs = {"attention_mask": mask, "max_new_tokens": 10} | options
        ours = model.generate(ids, use_cache=use_cache, **inputs, **case.memory())
        theirs = oracle.generate(ids, use_cache=False, **inputs, **case.memory())
        assert ours.tolist() == theirs.tolist()
        assert ours.tolist() != model.generate(ids, **inputs).tolist()


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 3}])
def test_without_stop_ids_all_rows_reach_the_limit(options):
    case = Case("rembert", 3)
    model, oracle = pair(case)
    ids, mask = case.prompts()
    ours = model.generate(ids, mask, max_new_tokens=6, eos_token_id=[], **options)
    theirs = oracle.generate(ids, attention_mask=mask, max_new_tokens=6, eos_token_id=None, **options)
    assert ours.tolist() == theirs.tolist()


def test_float32_equals_transformers():
    for seed in range(5):
        case = Case("rembert", seed)
        model, oracle = pair(case)
        ids, mask = case.prompts()
        for options in ({}, {"num_beams": 3}):
            ours = model.float().generate(ids, mask, max_new_tokens=8, **options)
            theirs = oracle.float().generate(ids, attention_mask=mask, max_new_tokens=8, **options)
            assert ours.tolist() == theirs.tolist()


def test_padding_id_0_fills_beam_search_too():
    """transformers 5.23 takes `pad_token_id or eos_token_id[0]`, so a padding id of 0 becomes the stop id there."""
    n_padded = 0
    for seed in range(6):
        case = Case("rembert", seed, padding=0)
        model, oracle = pair(case)
        ids, mask = case.prompts()
        ours, theirs = (
            m.generate(ids, attention_mask=mask, num_beams=3, max_new_tokens=12)[:, ids.shape[1] :].tolist()
            for m in (model, oracle)
        )
        for our_row, their_row in zip(ours, theirs, strict=True):
            end = our_row.index(STOP) + 1 if STOP in our_row else len(our_row)
            n_padding = len(our_row) - end
            assert our_row[:end] == their_row[:end]
            assert our_row[end:] == [0] * n_padding
            assert their_row[end:] == [STOP] * n_padding
            n_padded += n_padding
    assert n_padded


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"num_beams": 2, "pad_token_id": STOP}])
def test_mask_and_padding_by_default_as_in_transformers(options):
    case = Case("rembert", 8, padding=3)
    model, oracle = pair(case)
    ids, _ = case.prompts()
    ours, theirs = (m.generate(ids, max_new_tokens=8, **options) for m in (model, oracle))
    assert ours.tolist() == theirs.tolist()


@settings(max_examples=25)
@given(cases.filter(lambda case: case.family == "roberta"), st.booleans())
def test_roberta_equals_forward_step_by_step(case, use_cache):
    """The oracle is transformers' `forward` over the whole row, once for each token: no cache, no `generate`."""
    model = case.model()
    oracle = oracle_of(model, case)
    ids, mask = case.prompts()
    ours = model.generate(ids, mask, max_new_tokens=8, eos_token_id=[], use_cache=use_cache)
    for _ in range(8):
        tokens = oracle(ids, attention_mask=mask).logits[:, -1].float().argmax(-1)
        ids = torch.cat([ids, tokens[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(tokens)[:, None]], 1)
    assert ours.tolist() == ids.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_step_sees_what_forward_sees(family):
    """Logits with cache, without, and of one `forward` over the same row."""
    case = Case(family, 11, lengths=(6, 6))
    model = case.model()
    ids, mask = case.prompts()
    cached, uncached = (Continuation(model, ids, mask, use_cache=use_cache) for use_cache in (True, False))
    with torch.no_grad():
        for _ in range(5):
            logits = cached.next_logits()
            torch.testing.assert_close(logits, uncached.next_logits())
            torch.testing.assert_close(logits, model(cached.ids).logits[:, -1].float())
            for rows in (cached, uncached):
                rows.append(logits.argmax(-1))


@settings(max_examples=30)
@given(cases, st.one_of(greedy, beams), st.booleans())
def test_right_padded_rows_go_on_as_if_they_were_alone(case, options, has_segments):
    model = case.model()
    ids, mask = case.prompts("right")
    # Any id may be under the mask, and none of them counts.
    given_ids = ids.where(mask == 1, 6)
    segments = torch.randint(2, ids.shape) if has_segments else None
    together = model.generate(given_ids, mask, token_type_ids=segments, **options)
    assert (
        together[:, : ids.shape[1]].tolist()
        == given_ids.repeat_interleave(options.get("num_return_sequences", 1), 0).tolist()
    )
    new_ids = together[:, ids.shape[1] :]
    alone = []
    for row, length in enumerate(case.lengths):
        own_segments = None if segments is None else segments[row : row + 1, :length]
        own = model.generate(ids[row : row + 1, :length], token_type_ids=own_segments, **options)[:, length:]
        alone += [[*of_row, *[case.padding] * (new_ids.shape[1] - len(of_row))] for of_row in own.tolist()]
    assert new_ids.tolist() == alone


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_of_new_tokens_as_in_transformers(family):
    for seed in range(3):
        case = Case(family, seed, padding=3)
        segments = torch.ones_like(case.prompts()[0])
        assert_equal_to_transformers(case, {}, {"token_type_ids": segments})


SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 12, "top_p": 0.9, "repetition_penalty": 1.2}


@pytest.mark.parametrize("options", [SAMPLING, {"do_sample": True}, SAMPLING | {"num_return_sequences": 3}])
def test_sampling_from_the_global_generator_equals_transformers(options):
    """Where no row ends, both ask torch for the same numbers in the same order."""
    case = Case("rembert", 5)
    model, oracle = pair(case)
    ids, mask = case.prompts()
    torch.manual_seed(9)
    ours = model.generate(ids, mask, max_new_tokens=8, eos_token_id=[], **options)
    torch.manual_seed(9)
    theirs = oracle.generate(ids, attention_mask=mask, max_new_tokens=8, eos_token_id=None, **options)
    assert ours.tolist() == theirs.tolist()


def test_a_sampled_row_depends_on_its_seed_alone():
    case = Case("roberta", 6, lengths=(3, 5, 5, 8))
    model = case.model()
    ids, mask = case.prompts("right")
    seeds = [2**64 - 1, 8, 8, 0]
    together = model.generate(ids, mask, seed=seeds, **SAMPLING)[:, ids.shape[1] :]
    for row, (length, seed) in enumerate(zip(case.lengths, seeds, strict=True)):
        alone = model.generate(ids[row : row + 1, :length], seed=[seed], **SAMPLING)[0, length:].tolist()
        assert together[row].tolist() == [*alone, *[case.padding] * (together.shape[1] - len(alone))]


def test_one_seed_gives_each_row_its_own_text_and_the_same_every_time():
    case = Case("rembert", 7, lengths=(4,), stop_bonus=-9.0)
    model = case.model()
    ids, _ = case.prompts()
    options = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 12}
    first = model.generate(ids, seed=1, **options)
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert model.generate(ids, seed=1, **options).tolist() == first.tolist()
    assert model.generate(ids, seed=2, **options).tolist() != first.tolist()


@pytest.mark.parametrize(("family", "n_positions"), [("rembert", 40), ("roberta", 40 - 1 - 1)])
def test_a_prompt_and_new_tokens_must_fit_the_positions(family, n_positions):
    case = Case(family, 1, lengths=(2, 10), stop_bonus=-9.0)
    model = case.model()
    ids, mask = case.prompts("right")
    full = model.generate(ids, mask, max_new_tokens=n_positions - 10)
    assert full.shape[1] == n_positions
    with pytest.raises(ValueError, match=f"10 tokens and {n_positions - 9} new ones .* {n_positions} positions"):
        model.generate(ids, mask, max_new_tokens=n_positions - 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_length": 20}, "give max_new_tokens"),
        ({"num_beam": 2}, "did you mean 'num_beams'"),
        ({"seed": 1}, "set do_sample=True"),
        ({"do_sample": True, "seed": [1, 2]}, "2 seeds for 3 rows"),
        ({"do_sample": True, "seed": [1, 2, -3]}, "seed -3"),
        ({"eos_token_id": N_IDS}, "not in the vocabulary"),
        ({"num_beams": 20}, "needs 40 ids"),
        ({"attention_mask": torch.ones(3, 4)}, r"attention_mask is \(3, 4\)"),
        ({"attention_mask": torch.ones(3, 7, 7)}, r"attention_mask is \(3, 7, 7\)"),
        ({"attention_mask": torch.zeros(3, 7)}, r"rows \[0, 1, 2\] .* padding only"),
        ({"input_ids": torch.zeros(0, 4, dtype=torch.long)}, "not empty"),
        ({"input_ids": torch.zeros(3, 4)}, "give ids"),
        ({"token_type_ids": torch.zeros(3, 4, dtype=torch.long)}, r"token_type_ids is \(3, 4\)"),
        ({"encoder_hidden_states": torch.zeros(3, 4, 16)}, "add_cross_attention"),
        ({"encoder_hidden_states": torch.zeros(1, 4, 16)}, r"encoder_hidden_states is \(1, 4, 16\) and does not fit"),
    ],
)
def test_a_call_that_cannot_be_answered_says_why(arguments, message):
    case = Case("rembert", 1)
    with pytest.raises(ValueError, match=message):
        case.model().generate(**{"input_ids": case.prompts()[0]} | arguments)


def test_an_encoder_does_not_generate():
    config = RemBertConfig(**Case("rembert", 1).settings | {"is_decoder": False})
    with pytest.raises(ValueError, match="is_decoder=True"):
        RemBertForCausalLM(config).generate(torch.ones(1, 3, dtype=torch.long))
