"""`embed` against pooling by hand over the plain, padded model."""

from __future__ import annotations

import itertools

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
    documents = spec.task.encode({"text": [text]}, Encode(spec).tokenizer, spec.windows)
    model = RemBertModel.from_pretrained(str(short_model_folder), add_pooling_layer=False)
    kept, first, weights = [], [], []
    for window in range(len(documents.windows)):
        table = documents.windows.take(np.array([window]))
        with torch.inference_mode():
            hidden = model(torch.from_numpy(table.ids[None].astype(np.int64))).last_hidden_state[0].numpy()
        kept.append(hidden[table.kept])
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


SENTENCES = "in the sky. Das Buch liegt! 今日は。 " + "the house on the hill " * 12 + ".\nlast"


def test_sentences_have_the_vectors_that_they_have_alone(short_model_folder, tmp_path):
    texts = ["one", SENTENCES, "", None, "a. b. c"]
    _, rows = embed(short_model_folder, tmp_path, texts, vectors="sentence")
    found = rows["embeddings"].to_pylist()
    parts = [
        (row, text[p["start"] : p["end"]], p["embedding"]) for row, text in enumerate(texts) if text for p in found[row]
    ]
    assert [part for row, part, _ in parts if row == 1][:3] == ["in the sky.", "Das Buch liegt!", "今日は。"]
    assert [part for row, part, _ in parts if row == 4] == ["a.", "b.", "c"]
    assert found[2] == []
    assert found[3] is None
    (tmp_path / "alone").mkdir()
    _, alone = embed(short_model_folder, tmp_path / "alone", [part for _, part, _ in parts])
    for (_, _, vector), expected in zip(parts, alone["embedding"].to_pylist(), strict=True):
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert rows["n_windows"].to_pylist()[1] == sum(
        n for n, (row, *_) in zip(alone["n_windows"].to_pylist(), parts, strict=True) if row == 1
    )


def test_windows_have_a_vector_each_and_their_places_follow_one_another(short_model_folder, tmp_path):
    texts = [SENTENCES, "one", ""]
    _, rows = embed(short_model_folder, tmp_path, texts, vectors="window", normalize=False)
    for text, row in zip(texts, rows.to_pylist(), strict=True):
        places = [(part["start"], part["end"]) for part in row["embeddings"]]
        assert len(places) == row["n_windows"]
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))
        assert all(text[start:end].strip() for start, end in places) or not text
    (tmp_path / "whole").mkdir()
    _, whole = embed(short_model_folder, tmp_path / "whole", texts, normalize=False)
    (only,) = rows["embeddings"].to_pylist()[1]
    np.testing.assert_allclose(only["embedding"], whole["embedding"].to_pylist()[1], atol=1e-5)
