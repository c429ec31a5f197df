"""Activations one by one: those of `transformers`, and SELU, which it does not have."""

from __future__ import annotations

import math

import pytest
import torch

from rembert_ray.models import config_faults, layers
from tests.parity.oracle import TOLERANCE, assert_equal, each_family, make_pair, random_ids, transformers

ACT2FN = transformers.activations.ACT2FN
X = torch.cat([torch.linspace(-12, 12, 2001), torch.tensor([0.0, -0.0, 1e-8, -1e-8, 80.0, -80.0])])


def selu(x: torch.Tensor) -> torch.Tensor:
    """Self-normalizing exponential linear unit, with the constants of Klambauer et al. 2017 (arXiv:1706.02515)."""
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return scale * torch.tensor([value if value > 0 else alpha * math.expm1(value) for value in x.double().tolist()])


def test_every_name_in_a_configuration_has_an_activation():
    assert set(config_faults.ACTIVATIONS) == set(layers.ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(set(layers.ACTIVATIONS) - {"selu"}))
def test_activation_equals_hugging_face(name):
    assert_equal(layers.ACTIVATIONS[name]()(X), ACT2FN[name](X), name, TOLERANCE)


def test_selu_equals_its_definition():
    assert "selu" not in ACT2FN
    assert_equal(layers.ACTIVATIONS["selu"]()(X), selu(X).float(), "selu")


@each_family
@torch.no_grad()
def test_a_model_with_selu(family):
    # transformers refuses the name, so its model is made with another one and its activations are replaced.
    pair = make_pair(f"{family}ForMaskedLM", hidden_act="relu")
    pair.config.hidden_act = "selu"
    ours = type(pair.ours)(pair.config).eval()
    ours.load_state_dict(pair.ours.state_dict())
    for layer in getattr(pair.theirs, pair.config.base_model_prefix).encoder.layer:
        layer.intermediate.intermediate_act_fn = torch.nn.SELU()
    if family == "RemBert":  # RoBERTa's head has the exact GELU always
        pair.theirs.cls.predictions.activation = torch.nn.SELU()
    ids = random_ids(pair, 2, 6)
    assert_equal(ours(ids).logits, pair.theirs(ids).logits, "logits")
