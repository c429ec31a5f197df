"""The oracle of the parity tests: tiny random models of `transformers`, ours with their weights, and what equal means.

It holds no test. Every parity test draws a pair of models and inputs from here and ends in `assert_equal_outputs`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st

from rembert_ray.models import rembert, roberta_prelayernorm
from rembert_ray.models.checkpoint import PretrainedModel

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# Largest difference of float32 results: the order of additions differs, nothing else.
TOLERANCE = 1e-5
FAMILIES = {"RemBert": rembert, "RobertaPreLayerNorm": roberta_prelayernorm}
HEADS = (
    *("Model", "ForCausalLM", "ForMaskedLM", "ForTokenClassification"),
    *("ForQuestionAnswering", "ForSequenceClassification", "ForMultipleChoice"),
)
CLASSES = [family + head for family in FAMILIES for head in HEADS]
# Those whose `forward` hands an encoder's hidden states on, in Hugging Face.
CROSS_HEADS = ("Model", "ForCausalLM", "ForMaskedLM")
N_CHOICES = 2

each_class = pytest.mark.parametrize("name", CLASSES)
each_family = pytest.mark.parametrize("family", FAMILIES)
# The same examples in every run. A failing one is as small as it gets: shrinking would take minutes.
few = partial(settings, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))


@dataclass(frozen=True, repr=False)
class Pair:
    """A model of `transformers` and ours, with the same weights, both in evaluation mode. Its repr makes it again."""

    name: str
    seed: int
    values: dict[str, object]
    theirs: torch.nn.Module
    ours: PretrainedModel

    def __repr__(self) -> str:
        return f"make_pair({self.name!r}, {self.seed}, **{self.values})"

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        # Hypothesis would print both models.
        printer.text(repr(self))

    @property
    def config(self):
        return self.ours.config

    @property
    def is_multiple_choice(self) -> bool:
        return self.name.endswith("ForMultipleChoice")


def split_name(name: str) -> tuple[str, str]:
    """`RemBertForMaskedLM` to `RemBert` and `ForMaskedLM`."""
    family = next(family for family in FAMILIES if name.startswith(family))
    return family, name.removeprefix(family)


def our_class(name: str) -> type[PretrainedModel]:
    return getattr(FAMILIES[split_name(name)[0]], name)


def their_config(name: str, **values):
    """A tiny configuration for a class, with `values` instead of some of its defaults."""
    family, head = split_name(name)
    sizes = {"vocab_size": 61, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 40, "num_labels": 3, "initializer_range": 0.2}
    if family == "RemBert":
        sizes |= {"input_embedding_size": 8, "output_embedding_size": 20}
    if head == "ForQuestionAnswering":
        sizes["num_labels"] = 2
    return getattr(transformers, f"{family}Config")(**sizes | values)


def their_model(name: str, seed: int = 0, **values):
    """A random model, biases and norms too: at their initial 0 and 1 a pair that is swapped would not show."""
    torch.manual_seed(seed)
    model = getattr(transformers, name)(their_config(name, **values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_pair(name: str, seed: int = 0, **values) -> Pair:
    """A model of `transformers`, saved, and ours, strictly loaded from that folder."""
    theirs = their_model(name, seed, **values)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return Pair(name, seed, values, theirs, our_class(name).from_pretrained(folder, strict=True))


@st.composite
def pairs(draw, name: str, *, is_decoder: bool | None = None, has_cross_attention: bool | None = None) -> Pair:
    """Both models of a class with a random tiny configuration."""
    family, head = split_name(name)
    n_heads, n_labels = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 4))
    values = {
        "vocab_size": draw(st.integers(20, 70)),
        "num_attention_heads": n_heads,
        "hidden_size": n_heads * draw(st.sampled_from([3, 4, 8])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "intermediate_size": draw(st.sampled_from([5, 16, 40])),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "type_vocab_size": draw(st.integers(1, 3)),
        "pad_token_id": draw(st.sampled_from([0, 1, 5])),
        "num_labels": 2 if head == "ForQuestionAnswering" else n_labels,
        "is_decoder": draw(st.booleans()) if is_decoder is None else is_decoder,
    }
    may_cross = values["is_decoder"] and head in CROSS_HEADS and has_cross_attention is not False
    values["add_cross_attention"] = may_cross and (has_cross_attention or draw(st.booleans()))
    if family == "RemBert":
        values["input_embedding_size"] = draw(st.sampled_from([4, 12]))
        values["output_embedding_size"] = draw(st.sampled_from([6, 20]))
        values["classifier_dropout_prob"] = 0.3
    else:
        values["tie_word_embeddings"] = draw(st.booleans())
        values["classifier_dropout"] = draw(st.sampled_from([None, 0.3]))
    return make_pair(name, draw(st.integers(0, 2**16)), **values)


def random_ids(pair: Pair, *shape: int) -> torch.Tensor:
    """Ids of the whole vocabulary, padding included."""
    return torch.randint(0, pair.config.vocab_size, shape)


def random_mask(batch: int, length: int, kind: str) -> torch.Tensor:
    """1 and 0, `[batch, length]`: padded on the `right` or `left`, two tokens kept at least, or with `holes`."""
    kept = torch.randint(min(2, length), length + 1, (batch, 1))
    mask = torch.arange(length) < kept
    if kind == "holes":
        mask = torch.rand(batch, length) < 0.6
        mask[:, 0] = True
    return (mask.flip(1) if kind == "left" else mask).long()


@st.composite
def inputs(draw, pair: Pair, min_length: int = 1) -> dict[str, torch.Tensor]:
    """A random combination of what `forward` takes."""
    config, batch, length = pair.config, draw(st.integers(1, 3)), draw(st.integers(min_length, 9))
    if pair.is_multiple_choice:
        batch *= N_CHOICES
    torch.manual_seed(draw(st.integers(0, 2**16)))
    given = {"input_ids": random_ids(pair, batch, length)}
    if draw(st.booleans()):
        given = {"inputs_embeds": torch.randn(batch, length, config.embedding_size)}
    kinds = ["none", "right", "holes", *(["left"] if may_pad_left(pair) else [])]
    if (kind := draw(st.sampled_from(kinds))) != "none":
        given["attention_mask"] = random_mask(batch, length, kind)
    if draw(st.booleans()):
        given["token_type_ids"] = torch.randint(0, config.type_vocab_size, (batch, length))
    if draw(st.booleans()):
        given["position_ids"] = torch.randint(0, config.max_position_embeddings, (batch, length))
    if pair.is_multiple_choice:
        given = with_choices(given)
    if config.add_cross_attention:
        given["encoder_hidden_states"] = torch.randn(batch, 4, config.hidden_size)
        if draw(st.booleans()):
            given["encoder_attention_mask"] = random_mask(batch, 4, "holes")
    return given


def with_choices(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`[batch, ...]` to `[batch / 2, 2, ...]`."""
    return {key: value.unflatten(0, (-1, N_CHOICES)) for key, value in given.items()}


def random_labels(pair: Pair, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Labels that fit to inputs, some of them ignored; empty for a bare model."""
    head, n_labels = split_name(pair.name)[1], len(pair.config.id2label)
    shape = next(given[key].shape for key in ("input_ids", "inputs_embeds") if key in given)
    batch, length = (shape[0], shape[-1 if "input_ids" in given else -2])
    if head == "Model":
        return {}
    if head == "ForQuestionAnswering":
        start, end = (_with_label(torch.randint(-1, length + 2, (batch,)), 0) for _ in range(2))
        return {"start_positions": start, "end_positions": end}
    if head == "ForMultipleChoice":
        return {"labels": torch.randint(0, N_CHOICES, (batch,))}
    if head == "ForSequenceClassification":
        return {"labels": torch.randn(batch) if n_labels == 1 else torch.randint(0, n_labels, (batch,))}
    n_kinds = n_labels if head == "ForTokenClassification" else pair.config.vocab_size
    labels = torch.randint(0, n_kinds, (batch, length)).masked_fill(torch.rand(batch, length) < 0.3, -100)
    labels = _with_label(labels, length - 1)
    if (rows := is_meaningful(pair, given)) is not None:
        # A causal model's label is predicted one token before.
        labels[~(rows.roll(1, 1) & rows if head == "ForCausalLM" else rows)] = -100
    return {"labels": labels}


def _with_label(labels: torch.Tensor, place: int) -> torch.Tensor:
    """At least one label counts, the one at `place`: the mean over none is NaN."""
    labels.view(-1)[place] = 0
    return labels


def may_pad_left(pair: Pair) -> bool:
    """Not where the first token, which may look at nothing in a decoder, counts for the whole row."""
    heads = ("ForCausalLM", "ForMaskedLM", "ForTokenClassification")
    return not pair.config.is_decoder or split_name(pair.name)[1] in heads


def is_meaningful(pair: Pair, given: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Bool `[batch, length]`: the tokens with something to look at; None for all of them."""
    mask = given.get("attention_mask")
    return mask.cumsum(1) > 0 if pair.config.is_decoder and mask is not None and mask.dim() == 2 else None


def assert_equal(found, expected, label: str, tolerance: float = TOLERANCE, rows: torch.Tensor | None = None) -> None:
    """Tensors, or tuples of them, of the same shape and of the same values up to `tolerance`. NaN equals nothing.

    `rows` is bool `[batch, length]`: the tokens that are compared, on the first two axes or, for attention weights
    `[batch, heads, length, keys]`, on the first and third.
    """
    if isinstance(expected, tuple):
        assert len(found) == len(expected), f"{label}: {len(found)} tensors, expected {len(expected)}"
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_equal(ours, theirs, f"{label}[{index}]", tolerance, rows)
        return
    if rows is not None and expected.shape[:2] == rows.shape:
        found, expected = found[rows], expected[rows]
    elif rows is not None and expected.dim() == 4:
        found, expected = found.transpose(1, 2)[rows], expected.transpose(1, 2)[rows]
    torch.testing.assert_close(
        found, expected, rtol=0, atol=tolerance, equal_nan=False, msg=lambda text: f"{label}: {text}"
    )


def assert_equal_outputs(found, expected, tolerance: float = TOLERANCE, rows: torch.Tensor | None = None) -> None:
    """The same names with the same values. Caches are compared by length: what they hold shows in the next pass."""
    # For a model without cross-attention transformers 5.23 returns an empty tuple of its weights: that is none.
    names = [name for name, value in expected.items() if not (isinstance(value, tuple) and not value)]
    assert set(found) == set(names)
    for name in names:
        if name == "past_key_values":
            assert found[name].get_seq_length() == expected[name].get_seq_length()
        else:
            assert_equal(found[name], expected[name], name, tolerance, rows)
