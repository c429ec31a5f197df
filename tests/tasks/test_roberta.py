"""`tag`, `embed` and `generate` with RoBERTa-PreLayerNorm behind them, against transformers row by row.

The other tasks have both families in their own tests.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rembert_ray.models.auto import model_class
from rembert_ray.models.config import RobertaPreLayerNormConfig
from rembert_ray.models.weight_map import BASE, CAUSAL_LM, TOKEN_CLASSIFICATION
from rembert_ray.tokenizers.roberta import RobertaTokenizer
from tests.conftest import DATA, LABELS, write_corpus
from tests.stages.conftest import make_spec, run_shard
from tests.tasks.random_models import SIZES, learn_bpe

transformers = pytest.importorskip("transformers")

TEXTS = [text for text in json.loads((DATA / "blns.json").read_text()) if text][:80]
# A padding token that is written in the text, and a text of several windows.
TEXTS = ["in the sky", "", "a <pad> b<pad>", "naïve café — “quoted”", "the house on the hill " * 12, *TEXTS]
POSITIONS = 42


def save(folder, head, **options):
    folder.mkdir()
    tokenizer = learn_bpe(folder, TEXTS)
    torch.manual_seed(1)
    config = RobertaPreLayerNormConfig(
        vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, initializer_range=0.3, **SIZES, **options
    )
    model_class(config, head)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows_of(folder, tmp_path, task, **options):
    path = write_corpus(tmp_path / "in.parquet", TEXTS)
    spec = make_spec(folder, tmp_path / "out", task=task, **options)
    receipt, rows = run_shard(spec, path)
    assert receipt.failure is None, receipt.failure
    return spec, rows.to_pylist()


def one_window(tokenizer, text):
    """The ids of a text that fits one window, or None."""
    ids = tokenizer.encode(text)
    return torch.tensor([ids]) if len(ids) <= POSITIONS - 2 else None


@torch.no_grad()
def test_embed_equals_transformers_and_reads_positions_by_its_rule(tmp_path):
    folder = save(tmp_path / "model", BASE)
    spec, rows = rows_of(folder, tmp_path, "embed", normalize=False)
    assert spec.windows.max_tokens == POSITIONS - 2
    theirs = transformers.RobertaPreLayerNormModel.from_pretrained(folder).eval()
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    n_compared = 0
    for text, row in zip(TEXTS, rows, strict=True):
        assert row["error"] is None
        if (ids := one_window(tokenizer, text)) is not None:
            # No mask: what is written as padding is text to us, with the position that padding has.
            expected = theirs(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(row["embedding"], expected.numpy(), atol=1e-5)
            n_compared += 1
    assert n_compared > 50
    assert rows[4]["n_windows"] > 1


@torch.no_grad()
def test_tag_equals_transformers_and_cuts_words_from_the_text(tmp_path):
    folder = save(tmp_path / "model", TOKEN_CLASSIFICATION, id2label=dict(enumerate(LABELS)))
    _, rows = rows_of(folder, tmp_path, "tag", aggregation="none", ignore_labels=[])
    theirs = transformers.RobertaPreLayerNormForTokenClassification.from_pretrained(folder).eval()
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    seen = set()
    for text, row in zip(TEXTS, rows, strict=True):
        for entity in row["entities"]:
            assert entity["word"] == text[entity["start"] : entity["end"]] == entity["word"].strip()
        if (ids := one_window(tokenizer, text)) is None:
            continue
        labels = theirs(ids, attention_mask=torch.ones_like(ids)).logits[0, 1:-1].argmax(-1).tolist()
        offsets = tokenizer.encode_batch([text], add_special_tokens=False, with_offsets=True).offsets.tolist()
        expected = [LABELS[label] for label, (a, b) in zip(labels, offsets, strict=True) if text[a:b].strip()]
        assert [entity["entity_group"] for entity in row["entities"]] == expected
        seen.update(expected)
    assert len(seen) > 3


@torch.no_grad()
def test_generate_follows_the_positions_of_forward(tmp_path):
    folder = save(tmp_path / "model", CAUSAL_LM, is_decoder=True)
    columns, how = {"prompt": "text"}, {"max_new_tokens": 5, "return_full_text": False}
    _, rows = rows_of(folder, tmp_path, "generate", columns=columns, **how)
    theirs = transformers.RobertaPreLayerNormForCausalLM.from_pretrained(folder).eval()
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    n_compared = 0
    for text, row in zip(TEXTS, rows, strict=True):
        ids = [tokenizer.cls_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        if row["error"]:
            assert len(ids) + 5 > POSITIONS - 2
            continue
        n_prompt = len(ids)
        while len(ids) < n_prompt + 5:
            row_ids = torch.tensor([ids])
            logits = theirs(row_ids, attention_mask=torch.ones_like(row_ids), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert row["n_new_tokens"] == len(ids) - n_prompt
        before = tokenizer.decode([ids[n_prompt - 1]], skip_special_tokens=True)
        whole = tokenizer.decode(ids[n_prompt - 1 :], skip_special_tokens=True)
        assert row["generated_text"] == whole[len(before) :]
        n_compared += 1
    assert n_compared > 40
