"""RemBERT against transformers, its oracle, on tiny random configurations: padded, packed, prepacked."""

from __future__ import annotations

import pytest
import torch

from rembert_ray.engine.precision import prepack_linears
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.rembert import RemBertForTokenClassification, RemBertModel

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5
SIZES = {
    "small": {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64},
    "one_head": {"hidden_size": 24, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 40},
    "deep": {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 5, "intermediate_size": 96},
    "wide": {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 512},
}


def hf_config(size: str, activation: str = "gelu"):
    return transformers.RemBertConfig(
        vocab_size=97,
        input_embedding_size=16,
        output_embedding_size=40,
        max_position_embeddings=80,
        hidden_act=activation,
        num_labels=5,
        initializer_range=SIZES[size]["hidden_size"] ** -0.5,
        **SIZES[size],
    )


@pytest.fixture(params=[*SIZES, "relu", "silu", "gelu_new"])
def oracle(request, tmp_path):
    """A random Hugging Face tagger, and its folder."""
    torch.manual_seed(7)
    config = hf_config(request.param) if request.param in SIZES else hf_config("small", request.param)
    model = transformers.RemBertForTokenClassification(config).eval()
    with torch.no_grad():  # biases and norms start at 0 and 1 in Hugging Face: that would hide a swapped pair
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    return model, str(tmp_path)


def random_rows(lengths):
    return [torch.randint(0, 97, (length,)) for length in lengths]


@torch.no_grad()
def test_padded_forward_equals_hugging_face(oracle):
    theirs, folder = oracle
    ours = RemBertForTokenClassification.from_pretrained(folder)
    ids = torch.randint(0, 97, (4, 23))
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    mask[2, :6] = 0
    kinds = torch.randint(0, 2, ids.shape)
    labels = torch.randint(0, 5, ids.shape)
    expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=kinds, labels=labels)
    found = ours(input_ids=ids, attention_mask=mask, token_type_ids=kinds, labels=labels)
    seen = mask.bool()
    assert (found.logits - expected.logits)[seen].abs().max() <= TOLERANCE
    assert abs(found.loss - expected.loss) <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("prepacked", [False, True])
def test_packed_encode_equals_hugging_face_row_by_row(oracle, prepacked):
    theirs, folder = oracle
    ours = RemBertModel.from_pretrained(folder, add_pooling_layer=False)
    if prepacked and not prepack_linears(ours):
        pytest.skip("this torch has no oneDNN")
    lengths = [61, 17, 17, 17, 9, 9, 1]
    rows = random_rows(lengths)
    ids = torch.cat(rows)
    layout = PackedLayout.from_lengths(lengths, torch.device("cpu"))
    packed = ours.encoder.encode(ids, torch.zeros_like(ids), layout).split(lengths)
    for row, found in zip(rows, packed, strict=True):
        expected = theirs.rembert(input_ids=row[None]).last_hidden_state[0]
        assert (found - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_base_model_with_pooler_inputs_embeds_and_positions(tmp_path):
    theirs = transformers.RemBertModel(hf_config("small")).eval()
    theirs.save_pretrained(tmp_path)
    ours = RemBertModel.from_pretrained(str(tmp_path))
    embeds = torch.randn(2, 11, 16)
    positions = torch.randint(0, 80, (2, 11))
    mask = torch.ones(2, 11, dtype=torch.long)
    mask[0, 8:] = 0
    arguments = {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": mask}
    expected, found = theirs(**arguments), ours(**arguments)
    assert (found.last_hidden_state - expected.last_hidden_state).abs().max() <= TOLERANCE
    assert (found.pooler_output - expected.pooler_output).abs().max() <= TOLERANCE
    # transformers 5.23 documents a mask per query and fails on one; it must mean the same as the mask per row.
    per_query = ours(**arguments | {"attention_mask": mask[:, None].expand(2, 11, 11)})
    assert torch.equal(per_query.last_hidden_state, found.last_hidden_state)


@torch.no_grad()
def test_hugging_face_reads_what_we_write(tmp_path):
    from rembert_ray.models.config import RemBertConfig

    config = RemBertConfig(
        vocab_size=50,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=3,
        input_embedding_size=8,
        intermediate_size=24,
        id2label={0: "O", 1: "B-PER", 2: "I-PER"},
    )
    ours = RemBertForTokenClassification(config).eval()
    ours.save_pretrained(str(tmp_path), max_shard_bytes=4_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    theirs, report = transformers.RemBertForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.id2label == {0: "O", 1: "B-PER", 2: "I-PER"}
    ids = torch.randint(0, 50, (2, 9))
    assert (theirs.eval()(ids).logits - ours(ids).logits).abs().max() <= TOLERANCE
    again = RemBertForTokenClassification.from_pretrained(str(tmp_path))
    assert torch.equal(again(ids).logits, ours(ids).logits)


def test_a_few_steps_of_training_overfit_a_handful_of_rows():
    from rembert_ray.models.config import RemBertConfig

    torch.manual_seed(0)
    config = RemBertConfig(
        vocab_size=40,
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        input_embedding_size=16,
        intermediate_size=64,
        classifier_dropout_prob=0.0,
    )
    model = RemBertForTokenClassification(config).train()
    ids, labels = torch.randint(0, 40, (4, 12)), torch.randint(0, 2, (4, 12))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert all(parameter.grad is not None for parameter in model.parameters())
