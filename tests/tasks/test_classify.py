"""`classify` against Hugging Face's text classification pipeline, row by row, and windows against a plain loop."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.models.config import AutoConfig
from rembert_ray.models.weight_map import SEQUENCE_CLASSIFICATION
from rembert_ray.plan import Shard
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import decode
from rembert_ray.tasks.classify import Classify, ClassifyParameters
from rembert_ray.tokenizers.auto import AutoTokenizer
from tests.conftest import DATA
from tests.stages.conftest import make_spec, run_shard
from tests.tasks.random_models import FAMILIES, save_random_rembert, save_random_roberta

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5
ROWS = [json.loads(line) for line in (DATA / "classify.jsonl").read_text(encoding="utf-8").splitlines()]
TEXTS, PAIRS = [row["text"] for row in ROWS], [row["pair"] for row in ROWS]
LABELS = dict(enumerate(["science", "travel", "politics", "sports", "health"]))
PAIR_COLUMNS = {"text": "text", "pair": "pair"}


def save(folder: Path, family: str, **options) -> Path:
    make = {"rembert": save_random_rembert, "roberta-prelayernorm": save_random_roberta}[family]
    return make(folder, SEQUENCE_CLASSIFICATION, TEXTS, **{"id2label": LABELS} | options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of 512 positions for each family."""
    return {family: save(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def short_folder(tmp_path_factory):
    """40 positions."""
    return save(tmp_path_factory.mktemp("short"), "rembert", positions=40)


def with_config(folder: Path, target: Path, **values) -> Path:
    """A copy of a model with other values in its configuration."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | values))
    return target


def write_rows(path: Path, texts, pairs=None) -> Path:
    columns = {"id": [f"{index}" for index in range(len(texts))], "text": pa.array(texts, pa.string())}
    pq.write_table(pa.table(columns if pairs is None else columns | {"pair": pa.array(pairs, pa.string())}), path)
    return path


def classify(folder, tmp_path, texts, pairs=None, **options):
    path = write_rows(tmp_path / "in.parquet", texts, pairs)
    columns = None if pairs is None else PAIR_COLUMNS
    spec = make_spec(folder, tmp_path / "out", task="classify", columns=columns, **options)
    receipt, rows = run_shard(spec, path)
    assert receipt.failure is None
    return rows.to_pylist()


def pipeline(folder):
    """Hugging Face's pipeline and model, fed by our tokenizer: how texts are cut is not what is compared."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return transformers.TextClassificationPipeline(model=model, tokenizer=AutoTokenizer.from_pretrained(folder))


def assert_equal(found, expected, *, are_logits=False):
    """Rows of ours and results of the pipeline: labels, their order, and scores."""
    rtol = TOLERANCE if are_logits else 0
    for row, scores in zip(found, expected, strict=True):
        assert [one["label"] for one in row["scores"]] == [one["label"] for one in scores]
        wanted = [one["score"] for one in scores]
        np.testing.assert_allclose([one["score"] for one in row["scores"]], wanted, atol=TOLERANCE, rtol=rtol)
        assert (row["label"], row["score"]) == (row["scores"][0]["label"], row["scores"][0]["score"])
        assert row["error"] is None


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "regression"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_pipeline(folders, tmp_path, family, problem_type):
    folder = with_config(folders[family], tmp_path / "model", problem_type=problem_type)
    expected = pipeline(folder)(TEXTS, top_k=None)
    assert len({scores[0]["label"] for scores in expected}) > 2
    assert_equal(classify(folder, tmp_path, TEXTS), expected, are_logits=problem_type == "regression")


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_a_single_label_equals_the_pipeline(tmp_path, problem_type):
    folder = save(tmp_path, "rembert", id2label={0: "grade"}, problem_type=problem_type)
    found, expected = classify(folder, tmp_path, TEXTS[:20]), pipeline(folder)(TEXTS[:20], top_k=None)
    assert_equal(found, expected, are_logits=problem_type == "regression")


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("top_k", [1, 3, 9])
def test_functions_and_top_k_equal_the_pipeline(folders, tmp_path, function, top_k):
    expected = pipeline(folders["rembert"])(TEXTS[:20], top_k=top_k, function_to_apply=function)
    found = classify(folders["rembert"], tmp_path, TEXTS[:20], function=function, top_k=top_k)
    assert_equal(found, expected, are_logits=function == "none")


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_equal_the_pipeline(folders, tmp_path, family, segments):
    inputs = [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, PAIRS, strict=True)]
    expected = pipeline(folders[family])(inputs, top_k=None, return_token_type_ids=segments)
    assert_equal(classify(folders[family], tmp_path, TEXTS, PAIRS, segments=segments), expected)


@pytest.mark.parametrize("with_pairs", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_texts_equal_the_pipeline_with_truncation(tmp_path, family, with_pairs):
    folder, pairs = save(tmp_path, family, positions=40), PAIRS if with_pairs else None
    inputs = [{"text": t, "text_pair": p} for t, p in zip(TEXTS, PAIRS, strict=True)] if with_pairs else TEXTS
    expected = pipeline(folder)(inputs, top_k=None, truncation=True, max_length=40)
    found = classify(folder, tmp_path, TEXTS, pairs, long_documents="truncate")
    assert_equal(found, expected)
    assert sum(row["truncated"] for row in found) > 10


@pytest.mark.parametrize("combine", ["mean", "max"])
@pytest.mark.parametrize("with_pairs", [True, False])
def test_logits_of_windows_are_combined(short_folder, tmp_path, combine, with_pairs):
    texts, pairs = [f"{a} {b}" for a, b in zip(TEXTS, PAIRS, strict=True)], None
    if with_pairs:
        # Now the one, now the other text is the longer one.
        texts = [text if row % 2 else "short" for row, text in enumerate(texts)]
        pairs = ["a pair" if row % 2 else f"{pair} {pair}" for row, pair in enumerate(PAIRS)]
    found = classify(short_folder, tmp_path, texts, pairs, combine=combine, overlap=6)
    assert sum(row["n_windows"] > 2 for row in found) > 20
    spec = make_spec(short_folder, tmp_path / "again", task="classify", overlap=6)
    inputs = {"text": texts} if pairs is None else {"text": texts, "pair": pairs}
    documents = spec.task.encode(inputs, Encode(spec).tokenizer, spec.windows)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(short_folder).eval()
    logits, table = [], documents.windows
    for start, end, second in zip(table.starts[:-1], table.starts[1:], table.second_starts, strict=True):
        ids = torch.from_numpy(table.ids[start:end].astype(np.int64))[None]
        types = (torch.arange(ids.shape[1]) >= int(second)).long()[None]
        with torch.inference_mode():
            logits.append(model(input_ids=ids, token_type_ids=types).logits[0])
    expected = []
    for windows in torch.stack(logits).split(documents.n_windows.tolist()):
        combined = windows.mean(0) if combine == "mean" else windows.amax(0)
        scores = zip(LABELS.values(), combined.softmax(-1).tolist(), strict=True)
        expected.append(sorted(({"label": a, "score": b} for a, b in scores), key=lambda one: -one["score"]))
    assert_equal(found, expected)


def test_only_labels_that_reach_the_threshold_are_written(folders, tmp_path):
    folder = with_config(folders["rembert"], tmp_path / "model", problem_type="multi_label_classification")
    everything = pipeline(folder)(TEXTS, top_k=None)
    for number, options in enumerate(({"threshold": 0.6}, {"threshold": 0.6, "top_k": 2})):
        (tmp_path / str(number)).mkdir()
        found = classify(folder, tmp_path / str(number), TEXTS, **options)
        expected = [[s for s in scores if s["score"] >= 0.6][: options.get("top_k")] for scores in everything]
        assert [[s["label"] for s in row["scores"]] for row in found] == [[s["label"] for s in e] for e in expected]
        assert [row["label"] for row in found] == [scores[0]["label"] if scores else None for scores in expected]
        assert [row["score"] is None for row in found] == [not scores for scores in expected]
        assert {len(scores) for scores in expected} >= {0, 1, 2}
        assert not any(row["error"] for row in found)


@pytest.mark.parametrize(
    ("config", "parameters", "keys"),
    [
        ({}, {"threshold": 0.5}, ["threshold"]),
        ({}, {"threshold": 0.5, "function": "sigmoid"}, []),
        ({"problem_type": "multi_label_classification"}, {"threshold": 0.5, "top_k": 3}, []),
        ({"problem_type": "multi_label_classification"}, {"threshold": 0.5, "function": "none"}, ["threshold"]),
        ({"problem_type": "regression"}, {"threshold": 0.5, "top_k": 1}, ["threshold", "top_k"]),
        ({"problem_type": "regression"}, {"function": "sigmoid"}, []),
        ({"num_labels": 1}, {"threshold": 0.5}, []),
        ({"num_labels": 1}, {"function": "softmax"}, ["function"]),
    ],
)
def test_parameters_that_contradict_the_model_are_faults(folders, config, parameters, keys):
    task = Classify(ClassifyParameters.model_validate(parameters))
    found = task.faults(AutoConfig.from_pretrained(str(folders["rembert"]), **config))
    assert [key for key, _, _ in found] == keys
    assert all(what and fix for _, what, fix in found)


@pytest.fixture(scope="module")
def stages(short_folder, tmp_path_factory):
    """A pair classifier of 40 positions: texts and pairs in, rows of the output out."""
    spec = make_spec(short_folder, tmp_path_factory.mktemp("out"), task="classify", columns=PAIR_COLUMNS)
    encode, infer = Encode(spec), Infer(spec)

    def run(texts, pairs):
        with tempfile.TemporaryDirectory() as folder:
            path = write_rows(Path(folder) / "in.parquet", texts, pairs)
            envelope = infer.infer(encode.encode(Envelope(Shard(0, str(path), 0, len(texts), {}, spec.plan_id))))
        return decode(envelope.table, spec)

    return run


some_text = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.sampled_from(
        ["", " ", "👩‍👩‍👧‍👦 e\u0301 ﬁ ｗｏｒｄｓ", "שלום עולם", "word " * 60, "[MASK] [SEP] <pad>", "\x00", TEXTS[0]]
    ),
)


@settings(max_examples=25)
@given(st.lists(st.tuples(some_text, some_text), min_size=1, max_size=8))
def test_rows_out_are_rows_in(stages, rows):
    found = stages([text for text, _ in rows], [pair for _, pair in rows]).to_pylist()
    assert [row["id"] for row in found] == [str(index) for index in range(len(rows))]
    for (text, pair), row in zip(rows, found, strict=True):
        if text is None or pair is None:
            assert row["error"] == ("text is null" if text is None else "pair is null")
        if row["error"] is not None:
            assert row["label"] is row["score"] is row["scores"] is None
            assert row["n_windows"] == row["n_tokens"] == 0
            continue
        assert sorted(one["label"] for one in row["scores"]) == sorted(LABELS.values())
        assert sum(one["score"] for one in row["scores"]) == pytest.approx(1, abs=1e-5)
        assert row["n_windows"] >= 1


def test_a_row_is_rendered_as_a_line():
    task = Classify(ClassifyParameters())
    scores = [{"label": f"l{index}", "score": 0.5 - index / 20} for index in range(7)]
    assert task.render({"scores": scores[:2]}) == "l0 0.500, l1 0.450"
    assert task.render({"scores": scores}).endswith("l4 0.300 ... 2 more")
    assert task.render({"scores": []}) == "no label"
