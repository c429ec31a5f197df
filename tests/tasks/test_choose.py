"""`choose` against Hugging Face's ForMultipleChoice, row by row and unpadded; truncation, ragged rows, bad rows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.engine.documents import WindowOptions
from rembert_ray.models.weight_map import MULTIPLE_CHOICE
from rembert_ray.plan import Shard
from rembert_ray.ragged import splits
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import decode
from rembert_ray.tasks.choose import Choose, ChooseParameters, find_best, softmax
from rembert_ray.tokenizers.auto import AutoTokenizer
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template
from tests.conftest import DATA
from tests.stages.conftest import make_spec, run_shard
from tests.tasks.random_models import FAMILIES, save_random_rembert, save_random_roberta

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5
POSITIONS = 48
ROWS = [json.loads(line) for line in (DATA / "choose.jsonl").read_text(encoding="utf-8").splitlines()]
PROMPTS, CHOICES = [row["prompt"] for row in ROWS], [row["choices"] for row in ROWS]


def save(folder: Path, family: str, **options) -> Path:
    make = {"rembert": save_random_rembert, "roberta-prelayernorm": save_random_roberta}[family]
    texts = [f"{prompt} {choice}" for prompt, choices in zip(PROMPTS, CHOICES, strict=True) for choice in choices[:1]]
    return make(folder, MULTIPLE_CHOICE, texts, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of 512 positions for each family."""
    return {family: save(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture(scope="module")
def short_folders(tmp_path_factory):
    """The same with 48 positions."""
    return {family: save(tmp_path_factory.mktemp(family), family, positions=POSITIONS) for family in FAMILIES}


def write_rows(path: Path, prompts, choices) -> Path:
    ids = [f"{index}" for index in range(len(prompts))]
    columns = {"prompt": pa.array(prompts, pa.string()), "choices": pa.array(choices, pa.list_(pa.string()))}
    pq.write_table(pa.table({"id": ids, **columns}), path)
    return path


def choose(folder, tmp_path, prompts, choices, **options):
    path = write_rows(tmp_path / "in.parquet", prompts, choices)
    receipt, rows = run_shard(make_spec(folder, tmp_path / "out", task="choose", **options), path)
    assert receipt.failure is None
    return rows.to_pylist()


def expected_logits(folder, prompts, choices, **options):
    """For each row the logits of its choices, each choice on its own: nothing is padded, nothing batched."""
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [
            torch.cat(
                [
                    model(**{k: v[:, None] for k, v in tokenizer(p, c, return_tensors="pt", **options).items()}).logits[
                        0
                    ]
                    for c in row
                ]
            )
            for p, row in zip(prompts, choices, strict=True)
        ]


def assert_equal(found, expected, choices):
    for row, logits, texts in zip(found, expected, choices, strict=True):
        assert row["error"] is None
        np.testing.assert_allclose(row["scores"], logits.softmax(-1).numpy(), atol=TOLERANCE, rtol=0)
        assert row["choice"] == int(logits.argmax())
        assert row["choice_text"] == texts[row["choice"]]
        assert row["score"] == row["scores"][row["choice"]]
        assert row["n_windows"] == len(texts)


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_model_of_transformers(folders, tmp_path, family, segments):
    expected = expected_logits(folders[family], PROMPTS, CHOICES, return_token_type_ids=segments)
    found = choose(folders[family], tmp_path, PROMPTS, CHOICES, segments=segments)
    assert_equal(found, expected, CHOICES)
    assert {row["choice"] for row in found} >= {0, 1, 2, 3}
    assert not any(row["truncated"] for row in found)
    tokenizer = AutoTokenizer.from_pretrained(folders[family])
    for row, prompt, choices in zip(found, PROMPTS, CHOICES, strict=True):
        n_tokens = [len(ids) for ids in tokenizer([prompt, *choices], add_special_tokens=False)["input_ids"]]
        assert row["n_tokens"] == sum(n_tokens)


@pytest.mark.parametrize("long_documents", ["truncate", "window"])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_prompt_is_truncated(short_folders, tmp_path, family, long_documents):
    prompts = [f"{prompt} {other}" for prompt, other in zip(PROMPTS, reversed(PROMPTS), strict=True)]
    choices = [[choice[:25] for choice in row] for row in CHOICES]
    options = {"truncation": "only_first", "max_length": POSITIONS}
    expected = expected_logits(short_folders[family], prompts, choices, **options)
    found = choose(short_folders[family], tmp_path, prompts, choices, long_documents=long_documents)
    assert_equal(found, expected, choices)
    assert sum(row["truncated"] for row in found) > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_has_as_many_choices_as_it_likes(folders, tmp_path, family):
    choices = [[f"choice {index}" for index in range(n)] for n in (1, 2, 7, 60, 3)]
    prompts = PROMPTS[: len(choices)]
    found = choose(folders[family], tmp_path, prompts, choices)
    assert_equal(found, expected_logits(folders[family], prompts, choices), choices)
    assert found[0]["scores"] == [1.0]


def test_bad_rows_are_error_values(short_folders, tmp_path):
    long = "word " * 60
    prompts = ["fine", None, "no choice", "null", "null inside", "too long", long, "", "fine"]
    choices = [["a", "b"], ["a"], [], None, ["a", None], ["a", long], ["a", "b"], ["", ""], ["c"]]
    found = choose(short_folders["rembert"], tmp_path, prompts, choices)
    assert [row["id"] for row in found] == [str(index) for index in range(len(prompts))]
    assert [row["error"] for row in found] == [
        None,
        "prompt is null",
        "choices is empty",
        "choices is null",
        "choices[1] is null",
        f"choices[1] has 120 tokens, a window takes {POSITIONS - 3}",
        None,
        None,
        None,
    ]
    assert [row["choice"] is None for row in found] == [row["error"] is not None for row in found]
    assert [row["truncated"] for row in found] == [index == 6 for index in range(len(prompts))]
    # Equal choices: the first one.
    assert (found[7]["choice"], found[7]["scores"]) == (0, [0.5, 0.5])
    again = tmp_path / "again"
    again.mkdir()
    found = choose(short_folders["rembert"], again, prompts, choices, long_documents="error")
    assert found[6]["error"] == f"121 tokens, a window takes {POSITIONS - 3} (text.long_documents: error)"
    assert [row["error"] is None for row in found] == [index in (0, 7, 8) for index in range(len(prompts))]


def test_a_shard_of_nothing_but_empty_rows_is_written(short_folders, tmp_path):
    found = choose(short_folders["rembert"], tmp_path, ["a", "b"], [[], []])
    assert [row["error"] for row in found] == ["choices is empty"] * 2


@pytest.fixture(scope="module")
def stages(short_folders, tmp_path_factory):
    """Prompts and choices in, rows of the output out."""
    spec = make_spec(short_folders["rembert"], tmp_path_factory.mktemp("out"), task="choose")
    encode, infer = Encode(spec), Infer(spec)

    def run(prompts, choices):
        with tempfile.TemporaryDirectory() as folder:
            path = write_rows(Path(folder) / "in.parquet", prompts, choices)
            envelope = infer.infer(encode.encode(Envelope(Shard(0, str(path), 0, len(prompts), {}, spec.plan_id))))
        return decode(envelope.table, spec)

    return run


some_text = st.one_of(
    st.none(),
    st.text(max_size=9),
    st.sampled_from(["", "👩‍👩‍👧‍👦 e\u0301 ﬁ ｗｏｒｄｓ", "שלום", "word " * 50, "[SEP]"]),
)


@settings(max_examples=25)
@given(st.lists(st.tuples(some_text, st.none() | st.lists(some_text, max_size=5)), min_size=1, max_size=6))
def test_rows_out_are_rows_in(stages, rows):
    found = stages([prompt for prompt, _ in rows], [choices for _, choices in rows]).to_pylist()
    assert [row["id"] for row in found] == [str(index) for index in range(len(rows))]
    for (prompt, choices), row in zip(rows, found, strict=True):
        if row["error"] is not None:
            assert row["choice"] is row["choice_text"] is row["score"] is row["scores"] is None
            assert row["n_windows"] == row["n_tokens"] == 0
            continue
        assert prompt is not None
        assert len(row["scores"]) == len(choices) == row["n_windows"]
        assert row["choice_text"] == choices[row["choice"]]
        assert row["score"] == max(row["scores"])
        assert sum(row["scores"]) == pytest.approx(1, abs=1e-5)


class NumberTokenizer:
    """A text is its first id and its number of tokens, which count up: so the windows say what they hold."""

    template = Template((1,), (2,), (2,), 1)

    def encode_batch(self, texts, add_special_tokens):
        ids = [first + token for first, n in texts for token in range(n)]
        return Encoding(np.array(ids, np.int32), splits([n for _, n in texts]))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=4)), max_size=5), st.integers(12, 40)
)
def test_a_choice_is_whole_and_a_prompt_keeps_its_beginning(texts, max_tokens):
    prompts = [(1_000 * (row + 1), n) for row, (n, _) in enumerate(texts)]
    choices = [
        [(100_000 * (row + 1) + 100 * i, n) for i, n in enumerate(lengths)] for row, (_, lengths) in enumerate(texts)
    ]
    inputs = {"prompt": prompts, "choices": choices}
    documents = Choose(ChooseParameters()).encode(inputs, NumberTokenizer(), WindowOptions(max_tokens, 0))
    table, bounds, capacity = documents.windows, splits(documents.n_windows), max_tokens - 3
    for row, (n, lengths) in enumerate(texts):
        assert (row in documents.errors) == (not lengths or max(lengths) > capacity)
        assert documents.n_windows[row] == (0 if row in documents.errors else len(lengths))
        for index, window in enumerate(range(bounds[row], bounds[row + 1])):
            ids = table.ids[table.starts[window] : table.starts[window + 1]].tolist()
            n_read = min(n, capacity - lengths[index])
            first, second = (
                [start + token for token in range(count)]
                for start, count in ((prompts[row][0], n_read), (choices[row][index][0], lengths[index]))
            )
            assert ids == NumberTokenizer.template.join(first, second)
            assert table.second_starts[window] == n_read + 2
            assert documents.truncated[row] or n_read == n


@given(st.lists(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=5), min_size=1, max_size=6))
def test_ragged_softmax_and_best(rows):
    values, lengths = np.array([x for row in rows for x in row], np.float32), np.array([len(row) for row in rows])
    found = np.split(softmax(values, lengths), np.cumsum(lengths)[:-1])
    for scores, row in zip(found, rows, strict=True):
        np.testing.assert_allclose(scores, torch.tensor(row).softmax(-1).numpy(), atol=1e-6)
    assert find_best(values, lengths).tolist() == [int(np.argmax(row)) for row in rows]


def test_a_row_is_rendered_as_a_line():
    row = {"choice": 1, "choice_text": "yes", "score": 0.75, "scores": [0.25, 0.75]}
    assert Choose(ChooseParameters()).render(row) == "1: yes (0.250, 0.750)"
