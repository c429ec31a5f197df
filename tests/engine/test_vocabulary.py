"""The sliced product with the vocabulary against the head's own logits, plain and prepacked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from rembert_ray.engine import vocabulary
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.vocabulary import SlicedVocabulary
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.heads import LanguageModelHead

VOCABULARY = 103
CONFIGS = {
    "rembert": RemBertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_attention_heads=2, output_embedding_size=24
    ),
    "roberta": RobertaPreLayerNormConfig(vocab_size=VOCABULARY, hidden_size=16, num_attention_heads=2),
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def head(request):
    torch.manual_seed(3)
    made = LanguageModelHead(CONFIGS[request.param]).eval().requires_grad_(False)
    made.decoder.weight.mul_(8)
    made.decoder.bias.normal_()
    return made


@pytest.mark.parametrize("is_prepacked", [False, True])
@pytest.mark.parametrize(("slice_tokens", "rows"), [(4096, 512), (10, 4), (103, 1), (1, 7)])
def test_equals_the_whole_product(head, monkeypatch, slice_tokens, rows, is_prepacked):
    monkeypatch.setattr(vocabulary, "SLICE_TOKENS", slice_tokens)
    monkeypatch.setattr(vocabulary, "ROWS", rows)
    hidden, tokens = torch.randn(9, 16), torch.randint(0, VOCABULARY, (9, 5))
    expected = head(hidden).log_softmax(-1)
    sliced = SlicedVocabulary(head)
    if is_prepacked:
        sliced = copy.deepcopy(sliced)
        prepack_linears(sliced)
    with torch.inference_mode():
        assert_close(sliced(hidden), head(hidden), atol=1e-5, rtol=0)
        for top_k in (1, 12, VOCABULARY):
            scores, found = sliced.best(hidden, top_k)
            best = expected.topk(top_k)
            assert_close(scores, best.values, atol=1e-5, rtol=0)
            assert_close(expected.gather(1, found), best.values, atol=1e-5, rtol=0)
            assert all(len(set(row)) == top_k for row in found.tolist())
        assert_close(sliced.log_probabilities(hidden, tokens), expected.gather(1, tokens), atol=1e-5, rtol=0)


def test_no_rows(head):
    scores, tokens = SlicedVocabulary(head).best(torch.zeros(0, 16), 3)
    assert (scores.shape, tokens.shape) == ((0, 3), (0, 3))


def test_slices_are_the_head_itself_and_not_copies(head):
    sliced = SlicedVocabulary(head)
    assert sliced.slices[0].weight.data_ptr() == head.decoder.weight.data_ptr()
    assert sum(part.out_features for part in sliced.slices) == sliced.vocab_size == VOCABULARY


def test_what_is_not_a_number_stays_so(head):
    hidden = torch.randn(3, 16)
    hidden[1] = torch.nan
    with torch.inference_mode():
        scores, tokens = SlicedVocabulary(head).best(hidden, 2)
    assert scores.isnan().any(1).tolist() == [False, True, False]
    assert ((tokens >= 0) & (tokens < VOCABULARY)).all()


def test_logits_of_half_precision_are_reduced_as_float32(head):
    hidden = torch.randn(5, 16)
    with torch.inference_mode():
        scores, _ = SlicedVocabulary(copy.deepcopy(head).bfloat16()).best(hidden.bfloat16(), 3)
    assert scores.dtype == torch.float32
    assert_close(scores, head(hidden).log_softmax(-1).topk(3).values, atol=0.1, rtol=0)
