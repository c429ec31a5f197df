"""Training: gradients of every parameter equal those of `transformers`, and each head learns a handful of rows."""

from __future__ import annotations

import pytest
import torch

from tests.parity.oracle import (
    CLASSES,
    CROSS_HEADS,
    Pair,
    assert_equal,
    each_class,
    each_family,
    make_pair,
    our_class,
    random_ids,
    random_labels,
    random_mask,
    split_name,
    with_choices,
)

# Sums over the tokens of a batch, with both signs: a digit less than the outputs have.
GRADIENT_TOLERANCE = 1e-4
DECODER = {"is_decoder": True, "add_cross_attention": True}


def training_inputs(pair: Pair) -> dict[str, torch.Tensor]:
    given = {
        "input_ids": random_ids(pair, 4, 7),
        "attention_mask": random_mask(4, 7, "right"),
        "token_type_ids": torch.randint(0, 2, (4, 7)),
    }
    if pair.is_multiple_choice:
        given = with_choices(given)
    if pair.config.add_cross_attention:
        given["encoder_hidden_states"] = torch.randn(4, 3, pair.config.hidden_size)
    return given | random_labels(pair, given)


def loss_of(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    output = model(**given)
    if "loss" in output:
        return output["loss"]
    return output["last_hidden_state"].pow(3).mean() + output["pooler_output"].pow(2).sum()


def assert_equal_gradients(pair: Pair, given: dict[str, torch.Tensor]) -> None:
    for model in (pair.theirs, pair.ours):
        loss_of(model, given).backward()
    theirs = dict(pair.theirs.named_parameters(remove_duplicate=False))
    ours = dict(pair.ours.named_parameters())
    weights = pair.ours.weight_map()
    assert {weight.name for weight in weights} == set(ours)
    for weight in weights:
        found = ours[weight.name].grad
        assert found is not None, weight.name
        for source, part in zip(weight.sources, found.chunk(len(weight.sources)), strict=True):
            assert_equal(part, theirs[source].grad, source, GRADIENT_TOLERANCE)


@each_class
def test_gradients_equal_hugging_face(name):
    pair = make_pair(name, **DECODER if split_name(name)[1] in CROSS_HEADS else {})
    assert_equal_gradients(pair, training_inputs(pair))


def test_gradients_of_tied_and_untied_decoders():
    for is_tied in (True, False):
        pair = make_pair("RobertaPreLayerNormForMaskedLM", tie_word_embeddings=is_tied)
        decoder, word = pair.ours.head.decoder.weight, pair.ours.encoder.embeddings.word.weight
        assert (decoder is word) == is_tied
        assert_equal_gradients(pair, training_inputs(pair))


@each_family
def test_vectors_of_padding_do_not_learn(family):
    pair = make_pair(f"{family}Model")
    ids = random_ids(pair, 4, 7)
    ids[:, ::3] = pair.config.pad_token_id
    assert_equal_gradients(pair, {"input_ids": ids})


@pytest.mark.parametrize("name", [name for name in CLASSES if not name.endswith("Model")])
def test_each_head_learns_a_handful_of_rows(name):
    torch.manual_seed(1)
    pair = make_pair(name, hidden_size=32, is_decoder=name.endswith("ForCausalLM"))
    config = pair.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.classifier_dropout_prob = 0.0
    config.initializer_range = 0.1
    model = our_class(name)(config).train()
    given = training_inputs(pair)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model(**given).loss
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**given).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * first
    assert all(parameter.grad is not None for parameter in model.parameters())


@each_class
def test_dropout_works_in_training_only(name):
    pair = make_pair(name, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    given = training_inputs(pair)
    with torch.no_grad():
        assert torch.equal(pair.ours(**given)[0], pair.ours(**given)[0])
        pair.ours.train()
        assert not torch.equal(pair.ours(**given)[0], pair.ours(**given)[0])


@pytest.mark.parametrize("chance", [0.1, 0.7])
@each_class
def test_every_dropout_of_hugging_face_is_there(name, chance):
    # The kinds of dropout differ between heads; how many there are in a pass, and how strong, is compared.
    head = split_name(name)[1]
    key = "classifier_dropout_prob" if name.startswith("RemBert") else "classifier_dropout"
    pair = make_pair(name, **{key: chance}, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.0)
    assert dropouts(pair.ours, pair, head) == dropouts(pair.theirs, pair, head)


def dropouts(model: torch.nn.Module, pair: Pair, head: str) -> list[float]:
    """Probabilities of the dropout layers that one pass of a model goes through, sorted; those of 0 do nothing."""
    seen: list[float] = []
    hooks = [
        module.register_forward_hook(lambda module, given, output: seen.append(module.p))
        for module in model.modules()
        if isinstance(module, torch.nn.Dropout)
    ]
    ids = random_ids(pair, 1, 2, 3) if head == "ForMultipleChoice" else random_ids(pair, 2, 3)
    model(ids)
    for hook in hooks:
        hook.remove()
    return sorted(chance for chance in seen if chance)
