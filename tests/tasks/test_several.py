"""`several` against each of its heads run alone: the same values, from one pass of the encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rembert_ray.check import check_job
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.models.rembert import RemBertForTokenClassification
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.infer import Infer
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from tests.conftest import DATA, write_corpus, write_manifest
from tests.stages.conftest import make_spec, run_shard

TEXTS = [
    *[text for text in json.loads((DATA / "blns.json").read_text()) if text][:120],
    *["in the sky up above the house on the hill " * 5, "", None, "short"],
]


def heads(*entries):
    return {"task": "several", "heads": list(entries)}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_each_head_gives_what_it_gives_alone(short_model_folder, tmp_path, pooling):
    path = write_corpus(tmp_path / "in.parquet", TEXTS)
    tag = {"aggregation": "average", "ignore_labels": []}
    entries = [
        {"task": "embed", "head": {"pooling": pooling}},
        {"task": "tag", "head": tag},
        {"task": "tag", "prefix": "simple_", "head": {"aggregation": "simple"}},
    ]
    spec = make_spec(short_model_folder, tmp_path / "out", **heads(*entries))
    stages = (Encode(spec), Infer(spec))
    calls = []
    run = stages[1].engine.encoder.encode
    stages[1].engine.encoder.encode = lambda *arguments, **more: calls.append(1) or run(*arguments, **more)
    from rembert_ray.stages.write import Write

    receipt, rows = run_shard(spec, path, stages=(*stages, Write(spec)))
    assert receipt.failure is None
    assert len(calls) == receipt.facts["n_batches"]
    assert rows.column_names[:4] == ["id", "embedding", "entities", "simple_entities"]
    for number, (entry, column) in enumerate(zip(entries, rows.column_names[1:4], strict=True)):
        alone = make_spec(short_model_folder, tmp_path / f"alone{number}", task=entry["task"], **entry["head"])
        (name,) = alone.task.schema(alone.config).names
        expected = run_shard(alone, path)[1]
        assert rows["error"] == expected["error"]
        assert rows["n_windows"] == expected["n_windows"]
        assert_close(rows[column].to_pylist(), expected[name].to_pylist())


def assert_close(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if ours is None or theirs is None or isinstance(ours[0] if ours else {}, dict):
            strip = [
                [{k: v for k, v in entity.items() if k != "score"} for entity in row or []] for row in (ours, theirs)
            ]
            assert strip[0] == strip[1]
            scores = [[entity["score"] for entity in row or []] for row in (ours, theirs)]
            np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.fixture
def other_head(model_folder, tmp_path):
    """The same encoder with another classifier."""
    folder = tmp_path / "other"
    model = RemBertForTokenClassification.from_pretrained(str(model_folder))
    torch.nn.init.normal_(model.head.classifier.weight)
    model.save_pretrained(str(folder), max_shard_bytes=100_000)
    RemBertTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return folder


def check(tmp_path, model, head):
    write_corpus(tmp_path / "corpus" / "part.parquet", ["a"])
    text = {"task": "several", "model": str(model), "input": {"path": str(tmp_path / "corpus")}, "head": head}
    return check_job(
        load_manifest(write_manifest(tmp_path, json.dumps(text | {"output": {"path": str(tmp_path / "o")}})))
    )


def test_equal_encoders_in_two_folders_are_one(model_folder, other_head, tmp_path):
    entries = [{"task": "tag"}, {"task": "tag", "prefix": "other_", "model": "other"}]
    checked = check(tmp_path, model_folder, {"heads": entries})
    assert checked.task.schema(checked.config).names == ["entities", "other_entities"]
    changed = RemBertForTokenClassification.from_pretrained(str(other_head))
    torch.nn.init.normal_(changed.head.classifier.weight)
    changed.save_pretrained(str(other_head), max_shard_bytes=100_000)
    again = check(tmp_path, model_folder, {"heads": entries})
    assert again.plan.fingerprint.digest != checked.plan.fingerprint.digest, "another head is another result"


def test_encoders_that_differ_are_refused(model_folder, other_head, tmp_path):
    model = RemBertForTokenClassification.from_pretrained(str(other_head))
    model.encoder.layers[1].feed_forward.up.bias.data[3] += 1
    model.save_pretrained(str(other_head))
    (other_head / "model.safetensors.index.json").unlink()
    with pytest.raises(UnusableError, match="its encoder is not that of"):
        check(tmp_path, model_folder, {"heads": [{"task": "tag"}, {"task": "tag", "prefix": "b_", "model": "other"}]})


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ({"heads": [{"task": "tag"}]}, "list two or more"),
        ({"heads": [{"task": "tag"}, {"task": "tag"}]}, "more than one head writes 'entities'"),
        ({"heads": [{"task": "tagg"}, {"task": "tag"}]}, "'tagg' is no task that reads one text"),
        ({"heads": [{"task": "several"}, {"task": "tag"}]}, "'several' is no task that reads one text"),
        ({"heads": [{"task": "tag", "head": {"aggregatoin": "first"}}, {"task": "embed"}]}, "aggregatoin"),
    ],
)
def test_heads_that_cannot_be_are_named(model_folder, tmp_path, head, fault):
    with pytest.raises(UnusableError, match=fault):
        check(tmp_path, model_folder, head)


def test_a_row_is_shown_by_each_head_with_its_own_columns_only(model_folder, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["in the sky up above"])
    entries = [{"task": "embed"}, {"task": "tag", "prefix": "a_", "head": {"ignore_labels": []}}]
    spec = make_spec(model_folder, tmp_path / "out", **heads(*entries))
    (row,) = run_shard(spec, path)[1].to_pylist()
    shown = spec.task.render(row)
    vector, words = shown.split(" | ")
    assert vector.startswith("id=in-0 ")
    assert "entities" not in shown
    assert "sky/" in words
