"""`answer` against what transformers' own pipeline made of the same logits, and against all spans of all windows."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from rembert_ray.engine.documents import Decodable, WindowOptions
from rembert_ray.models.auto import model_class
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.weight_map import QUESTION_ANSWERING
from rembert_ray.ragged import flat_values
from rembert_ray.stages.encode import Encode
from rembert_ray.tasks.answer import Answer, AnswerParameters
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast
from rembert_ray.tokenizers.roberta import RobertaTokenizer
from tests.conftest import DATA, TOKENIZER
from tests.data.record_answer import TOP_K, logits
from tests.stages.conftest import make_spec, run_shard
from tests.text.spans_by_definition import all_spans, first_without_overlap

ROWS = [json.loads(line) for line in (DATA / "answer.jsonl").read_text(encoding="utf-8").splitlines()]
POSITIONS = 128
MODELS = {"rembert": "RemBertForQuestionAnswering", "roberta": "RobertaPreLayerNormForQuestionAnswering"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random model of each family, with windows that are too short for most contexts."""
    base = tmp_path_factory.mktemp("answer")
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator([row["context"] for row in ROWS], 600, special_tokens=special, show_progress=False)
    bpe.save_model(str(base))
    return {
        "rembert": save_random(
            base / "rembert",
            RemBertTokenizer(TOKENIZER),
            RemBertConfig,
            input_embedding_size=16,
            output_embedding_size=16,
            max_position_embeddings=POSITIONS,
        ),
        "roberta": save_random(
            base / "roberta",
            RobertaTokenizer(base / "vocab.json", base / "merges.txt"),
            RobertaPreLayerNormConfig,
            type_vocab_size=1,
            max_position_embeddings=2 * POSITIONS + 2,
        ),
    }


def save_random(folder, tokenizer, config_class, **options):
    """A folder with the tokenizer and a model whose scores differ from token to token."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = config_class(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **options)
    torch.manual_seed(7)
    model = model_class(config, QUESTION_ANSWERING)(config)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizers(folders):
    return {
        "rembert": RemBertTokenizer(TOKENIZER),
        "rembert_fast": RemBertTokenizerFast(TOKENIZER),
        "roberta": RobertaTokenizer.from_pretrained(folders["roberta"]),
    }


def write_rows(path, questions, contexts):
    ids = [str(index) for index in range(len(questions))]
    texts = {"question": pa.array(questions, pa.string()), "context": pa.array(contexts, pa.string())}
    pq.write_table(pa.table({"id": ids, **texts}), path)
    return path


def decode(parameters, rows, tokenizer, logits_of, max_tokens=2048):
    """Columns of the task for logits that are a function of row and length of a window."""
    task = Answer(AnswerParameters(**parameters))
    inputs = {name: [row[name] for row in rows] for name in ("question", "context")}
    documents = task.encode(inputs, tokenizer, WindowOptions(max_tokens, 4))
    windows = documents.windows
    kept = [logits_of(window, windows.lengths[window])[keep] for window, keep in enumerate(kept_of_windows(windows))]
    start, end = np.concatenate(kept).T
    n_kept = np.diff(windows.kept_splits)
    values = {"start": start, "end": end}
    decodable = Decodable(
        inputs, documents.n_tokens, documents.truncated, documents.n_windows, n_kept, values, extras=documents.extras
    )
    return task.decode(decodable, RemBertConfig())


def kept_of_windows(windows):
    return np.split(windows.kept, windows.kept_splits[1:-1])


@pytest.mark.parametrize("kind", ["tokens", "words", "with_null"])
def test_answers_equal_those_that_the_pipeline_of_transformers_4_made_of_the_same_logits(kind):
    recorded = {row["id"]: row[kind] for row in json.loads((DATA / "answer_4.46.3.json").read_text())}
    # The pipeline takes a Chinese text up to the next space for one word.
    rows = [row for row in ROWS if kind != "words" or row["language"] != "zh"]
    numbers = [ROWS.index(row) for row in rows]
    parameters = {"align_to_words": kind == "words", "null_answer": kind == "with_null", "top_k": TOP_K}
    found = decode(
        parameters, rows, RemBertTokenizerFast(TOKENIZER), lambda window, length: logits(numbers[window], length)
    )
    n_null = n_differ = 0
    for row, answers in zip(rows, found["answers"].to_pylist(), strict=True):
        expected = recorded[row["id"]]
        assert [one["start"] for one in answers] == [one[0] for one in expected]
        assert [one["score"] for one in answers] == pytest.approx([one[2] for one in expected], rel=1e-4)
        for one, (_, end, _) in zip(answers, expected, strict=True):
            # Where the answer ends with a lone '▁', the pipeline adds the word behind it.
            surplus = row["context"][one["end"] : end]
            assert surplus == "" or (kind == "words" and surplus[0] == " " and len(surplus.split()) == 1)
            n_differ += surplus != ""
        n_null += any(one["end"] == 0 for one in answers)
    assert (n_null > 3) == (kind == "with_null")
    assert n_differ == (2 if kind == "words" else 0)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(
    "parameters",
    [{}, {"top_k": 4, "max_answer_tokens": 6}, {"align_to_words": False, "null_answer": True, "top_k": 3}],
    ids=str,
)
def test_answers_are_the_best_of_all_spans_of_all_windows(folders, tmp_path, family, parameters):
    transformers = pytest.importorskip("transformers")
    folder = folders[family]
    rows = [row for row in ROWS if len(row["context"]) < 700]
    questions, contexts = ([row[name] for row in rows] for name in ("question", "context"))
    path = write_rows(tmp_path / "in.parquet", questions, contexts)
    spec = make_spec(folder, tmp_path / "out", task="answer", overlap=10, **parameters)
    _, table = run_shard(spec, path)
    oracle = getattr(transformers, MODELS[family]).from_pretrained(folder).eval()
    # Random models have few favourites; what matters is that they are not all at the same place.
    assert len({(one["start"], one["end"]) for row in table["answers"].to_pylist() for one in row}) > 20
    for row, question, context in zip(table.to_pylist(), questions, contexts, strict=True):
        windows = logits_by_window(spec, oracle, question, context)
        assert len(windows) == row["n_windows"]
        spans, null_score = all_spans(context, windows, spec.task.parameters)
        expected = first_without_overlap(spans, spec.task.parameters.top_k)
        assert [(one["start"], one["end"]) for one in row["answers"]] == [span[1:] for span in expected]
        assert [one["answer"] for one in row["answers"]] == [context[start:end] for _, start, end in expected]
        assert [one["score"] for one in row["answers"]] == pytest.approx([span[0] for span in expected], rel=1e-4)
        assert row["null_score"] == pytest.approx(null_score, rel=1e-4)
    assert max(table["n_windows"].to_pylist()) > 3


def logits_by_window(spec, oracle, question, context):
    """(start logits, end logits, offsets) of the opening token and the context of each window, by transformers."""
    tokenizer = Encode(spec).tokenizer
    encoding = tokenizer.encode_batch([context], add_special_tokens=False, with_offsets=True)
    documents = spec.task.encode({"question": [question], "context": [context]}, tokenizer, spec.windows)
    starts = flat_values(documents.extras["window_starts"])
    windows = []
    for window, (start, kept) in enumerate(zip(starts, kept_of_windows(documents.windows), strict=True)):
        part = documents.windows.take(np.array([window]))
        ids = torch.from_numpy(part.ids[None].astype(np.int64))
        types = (torch.arange(ids.shape[1]) >= int(part.second_starts[0])).long()[None]
        assert bool(types.any()) == (oracle.config.model_type == "rembert")
        with torch.inference_mode():
            found = oracle(input_ids=ids, token_type_ids=types)
        assert part.ids[kept[1:]].tolist() == encoding.ids[start : start + len(kept) - 1].tolist()
        offsets = encoding.offsets[start : start + len(kept) - 1].tolist()
        windows.append((found.start_logits[0, kept].tolist(), found.end_logits[0, kept].tolist(), offsets))
    return windows


TEXTS = st.text(st.sampled_from("ab c.\n\u3000é\u0301א\u200f中文ｗ①½\u2028👩\u200d🔬เก"), max_size=40)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), st.integers(1, 4), st.booleans(), st.integers(0, 9))
@pytest.mark.parametrize("kind", ["rembert", "rembert_fast", "roberta"])
def test_offsets_cut_the_answer_out_of_any_context(tokenizers, kind, texts, top_k, align_to_words, seed):
    rows = [{"question": "a" if len(question) > 12 else question, "context": context} for question, context in texts]
    numbers = np.random.default_rng(seed)
    found = decode(
        {"top_k": top_k, "align_to_words": align_to_words, "max_answer_tokens": 6},
        rows,
        tokenizers[kind],
        lambda _, length: numbers.standard_normal((length, 2)).astype(np.float32),
        max_tokens=64,
    )
    assert len(found["answers"]) == len(found["null_score"]) == len(rows)
    for row, answers in zip(rows, found["answers"].to_pylist(), strict=True):
        assert len(answers) <= top_k
        assert all(one["answer"] == row["context"][one["start"] : one["end"]] for one in answers)
        assert all(one["answer"] == one["answer"].strip() != "" for one in answers)
        assert [one["score"] for one in answers] == sorted((one["score"] for one in answers), reverse=True)
        for one, other in itertools.combinations(answers, 2):
            assert one["start"] >= other["end"] or one["end"] <= other["start"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), min_size=1, max_size=6), st.integers(0, 8))
def test_windows_over_contexts_lose_nothing_and_begin_with_the_whole_question(tokenizers, lengths, overlap):
    tokenizer = tokenizers["rembert"]
    inputs = {"question": ["a " * n for n, _ in lengths], "context": ["b " * n for _, n in lengths]}
    documents = Answer(AnswerParameters()).encode(inputs, tokenizer, WindowOptions(24, overlap))
    assert not documents.errors
    starts, window = flat_values(documents.extras["window_starts"]), 0
    for row, (n_question, n_context) in enumerate(lengths):
        covered = np.zeros(n_context, np.int64)
        for _ in range(documents.n_windows[row]):
            part = documents.windows.take(np.array([window]))
            question = tokenizer.template.join([int(tokenizer.convert_tokens_to_ids("▁a"))] * n_question, [])[:-1]
            assert part.ids[: len(question)].tolist() == question
            assert part.kept.tolist() == [0, *range(len(question), len(part.ids) - 1)]
            assert int(part.second_starts[0]) == len(question)
            assert len(part.ids) <= 24
            covered[starts[window] : starts[window] + len(part.kept) - 1] += 1
            window += 1
        assert (covered > 0).all()
        # Neighbours share what they should, and no window more than that with the next but one.
        assert int(covered.sum()) == n_context + overlap * (documents.n_windows[row] - 1)
    assert window == len(documents.windows)


def test_rows_that_cannot_be_used_stay_with_an_error_and_the_others_have_answers(folders, tmp_path):
    question, context = ROWS[0]["question"], ROWS[0]["context"]
    long_question = question * 20
    path = write_rows(
        tmp_path / "in.parquet",
        [question, None, question, question, long_question, long_question, "", question],
        [context, context, None, "", context, "", context, " \n\u3000"],
    )
    _, table = run_shard(make_spec(folders["rembert"], tmp_path / "out", task="answer", top_k=2), path)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [str(index) for index in range(8)]
    assert [row["error"] and row["error"][:15] for row in rows] == [
        None, "question is nul", "context is null", None, "the first text ", "the first text ", None, None,
    ]  # fmt: skip
    assert [row["answers"] if row["answers"] is None else len(row["answers"]) for row in rows] == [
        2, None, None, 0, None, None, 2, 0,
    ]  # fmt: skip
    assert [row["null_score"] is None for row in rows] == [row["error"] is not None for row in rows]
    assert rows[3]["null_score"] == 1.0


def test_no_answer_is_an_answer_of_its_own(folders, tmp_path):
    path = write_rows(tmp_path / "in.parquet", ["who?"], [""])
    _, table = run_shard(make_spec(folders["rembert"], tmp_path / "out", task="answer", null_answer=True), path)
    assert table["answers"].to_pylist() == [[{"answer": "", "score": 1.0, "start": 0, "end": 0}]]


def test_a_truncated_context_has_answers_only_where_it_was_read(folders, tmp_path):
    row = ROWS[6]
    path = write_rows(tmp_path / "in.parquet", [row["question"]], [row["context"]])
    spec = make_spec(folders["rembert"], tmp_path / "out", task="answer", long_documents="truncate", top_k=50)
    _, table = run_shard(spec, path)
    (found,) = table.to_pylist()
    assert (found["truncated"], found["n_windows"]) == (True, 1)
    tokenizer = Encode(spec).tokenizer
    offsets = tokenizer.encode_batch([row["context"]], add_special_tokens=False, with_offsets=True).offsets
    n_question = len(tokenizer.encode_batch([row["question"]], add_special_tokens=False).ids)
    last = offsets[POSITIONS - 3 - n_question - 1, 1]
    assert max(one["end"] for one in found["answers"]) <= last + len(row["context"][last:].split()[0])


def test_a_row_is_shown_by_its_answers():
    answers = [{"answer": word, "score": 0.25, "start": 0, "end": 1} for word in ("one", "", "three", "four")]
    task = Answer(AnswerParameters())
    assert task.render({"answers": answers}) == "one (0.250) | no answer (0.250) | three (0.250) ... 1 more"
    assert task.render({"answers": []}) == "no answer"
