"""`embed` against pooling by hand over the plain, padded model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.stages.encode import Encode
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from tests.conftest import write_corpus
from tests.stages.conftest import make_spec, run_shard

TEXTS = ["in the sky up above", "", "Das Buch liegt auf dem Tisch.", "one"]


@pytest.fixture(scope="module")
def pooler_folder(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooler")
    torch.manual_seed(11)
    RemBertModel(RemBertConfig.from_pretrained(str(model_folder))).save_pretrained(str(folder))
    RemBertTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return folder


def embed(folder, tmp_path, texts, **parameters):
    path = write_corpus(tmp_path / "in.parquet", texts)
    spec = make_spec(folder, tmp_path / "out", task="embed", **parameters)
    return spec, run_shard(spec, path)[1]


@pytest.mark.parametrize("pooling", ["cls", "pooler", "mean", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_of_short_texts(pooler_folder, tmp_path, pooling, normalize):
    _, rows = embed(pooler_folder, tmp_path, TEXTS, pooling=pooling, normalize=normalize)
    model = RemBertModel.from_pretrained(str(pooler_folder))
    tokenizer = RemBertTokenizer.from_pretrained(pooler_folder)
    for text, found in zip(TEXTS, rows["embedding"].to_pylist(), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            out = model(ids)
        hidden = out.last_hidden_state[0]
        expected = {"cls": hidden[0], "pooler": out.pooler_output[0], "mean": hidden.mean(0), "max": hidden.amax(0)}
        vector = expected[pooling].numpy()
        if normalize:
            vector = vector / np.linalg.norm(vector)
        np.testing.assert_allclose(found, vector, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_windows_of_a_long_document_are_pooled_by_tokens(short_model_folder, tmp_path, pooling):
    text = "in the sky up above the house on the hill there was a light " * 6
    spec, rows = embed(short_model_folder, tmp_path, [text], pooling=pooling, normalize=False, overlap=5)
    assert rows["n_windows"].to_pylist()[0] > 4
    documents = spec.task.encode([text], Encode(spec).tokenizer, spec.capacity, spec.overlap)
    model = RemBertModel.from_pretrained(str(short_model_folder), add_pooling_layer=False)
    kept, first, weights = [], [], []
    for window in range(len(documents.windows)):
        table = documents.windows.take(np.array([window]))
        with torch.inference_mode():
            hidden = model(torch.from_numpy(table.ids[None].astype(np.int64))).last_hidden_state[0].numpy()
        kept.append(hidden[table.kept_starts[0] : table.kept_ends[0]])
        first.append(hidden[0])
        weights.append(len(kept[-1]))
    tokens = np.concatenate(kept)
    assert len(tokens) == rows["n_tokens"].to_pylist()[0] + 2
    expected = {
        "cls": np.average(np.stack(first), axis=0, weights=weights),
        "mean": tokens.mean(0),
        "max": tokens.max(0),
    }
    np.testing.assert_allclose(rows["embedding"].to_pylist()[0], expected[pooling], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_are_plain_fixed_size_lists(model_folder, tmp_path, dtype):
    import duckdb

    spec, rows = embed(model_folder, tmp_path, TEXTS, dtype=dtype)
    number = pa.float16() if dtype == "float16" else pa.float32()
    assert rows.schema.field("embedding").type == pa.list_(pa.field("element", number), 32)
    lengths = np.linalg.norm(np.array(rows["embedding"].to_pylist(), dtype=np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
    found = duckdb.sql(f"SELECT id, len(embedding) AS n FROM '{spec.output.path}/part-*.parquet'").fetchall()
    assert found == [(f"in-{index}", 32) for index in range(4)]
