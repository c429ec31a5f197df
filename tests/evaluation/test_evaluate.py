"""`rembert-ray evaluate` over outputs as jobs leave them: each task, groups, errors, and what is refused."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.evaluation import evaluate as module
from rembert_ray.evaluation.evaluate import evaluate
from rembert_ray.evaluation.scoring import SCORINGS
from rembert_ray.models.config import RemBertConfig
from rembert_ray.tasks.base import task_names

TEXTS = pa.list_(pa.string())
ERROR = {"error": "text is null"}
GOLD = [("gold", pa.string())]


def label(name, score=0.9):
    return {"label": name, "score": score, "scores": [{"label": name, "score": score}]}


def answer(*texts):
    return {"answers": [{"answer": text, "score": 0.5, "start": 0, "end": len(text)} for text in texts]}


def fills(*masks):
    one = {"score": 0.1, "token": 7, "sequence": "x"}
    return {"fills": [[one | {"token_str": word} for word in mask] for mask in masks]}


def total(found):
    return {name: value for name, value in found.total.to_dict().items() if name != "per_label"}


def counts(n_rows, n_errors=0, n_without_label=0):
    return {"n_rows": n_rows, "n_errors": n_errors, "n_without_label": n_without_label}


def test_classify_counts_errors_as_wrong_and_leaves_rows_without_a_label_out(output):
    rows = [label("a") | {"gold": "a"}, label("b") | {"gold": "a"}, ERROR | {"gold": "a"}, label("b") | {"gold": "b"}]
    url = output("classify", [*rows, label("b"), ERROR], GOLD)
    found = evaluate(url, "gold")
    # a: 1 of 1 predicted, 1 of 3 found; b: 1 of 2 predicted, 1 of 1 found.
    scores = {"accuracy": 0.5, "f1": (0.5 + 2 / 3) / 2, "precision": 0.75, "recall": 2 / 3}
    assert total(found) == pytest.approx(counts(6, 2, 2) | scores)
    assert found.total.to_dict()["per_label"]["a"]["number"] == 3
    assert "rows with an error count as wrong (2)" in list(found.notes())


def test_classify_with_class_ids_takes_the_names_of_the_model(output, tmp_path):
    RemBertConfig(id2label={0: "no", 1: "yes"}).save_pretrained(str(tmp_path / "model"))
    rows = [label("yes") | {"gold": 1}, label("yes") | {"gold": 0}, label("no") | {"gold": -1}]
    url = output("classify", rows, [("gold", pa.int64())], model=tmp_path / "model")
    assert total(evaluate(url, "gold"))["accuracy"] == 0.5
    assert total(evaluate(url, "gold"))["n_without_label"] == 1


def test_classify_with_numbers_is_regression_if_the_model_is(output, tmp_path):
    RemBertConfig(num_labels=1, problem_type="regression").save_pretrained(str(tmp_path / "model"))
    rows = [label("LABEL_0", score) | {"gold": gold} for score, gold in [(1.0, 1.0), (2.0, 4.0), (3.0, 5.0)]]
    url = output("classify", [*rows, ERROR | {"gold": 1.0}], [("gold", pa.float32())], model=tmp_path / "model")
    found = total(evaluate(url, "gold"))
    assert found["mse"] == pytest.approx((4 + 4) / 3)
    assert found["spearman"] == pytest.approx(1)
    assert "rows with an error are left out (1)" in list(evaluate(url, "gold").notes())
    RemBertConfig(num_labels=3).save_pretrained(str(tmp_path / "model"))
    with pytest.raises(UnusableError, match="the model tells 3 classes apart"):
        evaluate(url, "gold")


def test_classify_with_lists_of_labels_takes_what_reaches_the_threshold(output):
    scores = [{"label": "a", "score": 0.7}, {"label": "b", "score": 0.4}]
    rows = [{"label": "a", "score": 0.7, "scores": scores, "gold": gold} for gold in (["a"], ["b", "a"], [], None)]
    found = total(evaluate(output("classify", rows, [("gold", TEXTS)]), "gold"))
    assert found == pytest.approx(counts(4, 0, 1) | {"exact_match": 1 / 3, "f1_micro": 2 / 3, "f1_macro": 0.4})


def test_a_threshold_of_the_job_counts(output):
    scores = [{"label": "a", "score": 0.45}]
    rows = [{"label": "a", "score": 0.45, "scores": scores, "gold": ["a"]}]
    url = output("classify", rows, [("gold", TEXTS)], head={"threshold": 0.4})
    assert total(evaluate(url, "gold"))["exact_match"] == 1


def test_choose_by_index_or_by_text(output):
    rows = [
        {
            "choice": choice,
            "choice_text": "abc"[choice],
            "score": 0.5,
            "scores": [0.5],
            "gold": gold,
            "text": "abc"[gold],
        }
        for choice, gold in [(0, 0), (1, 0), (2, 2)]
    ]
    url = output("choose", [*rows, ERROR | {"gold": 1, "text": "b"}], [("gold", pa.int32()), ("text", pa.string())])
    assert total(evaluate(url, "gold")) == counts(4, 1) | {"accuracy": 0.5}
    assert total(evaluate(url, "text")) == counts(4, 1) | {"accuracy": 0.5}


def test_answer_with_lists_texts_or_the_structs_of_datasets(output):
    struct = pa.struct([("text", TEXTS), ("answer_start", pa.list_(pa.int32()))])
    golds = [["Broncos", "Denver Broncos"], ["Denver"], []]
    predictions = [answer("the Broncos", "x"), answer("Denver Broncos"), answer()]
    rows = [
        {**found, "gold": gold, "struct": {"text": gold, "answer_start": [0] * len(gold)}, "text": (gold or [""])[0]}
        for found, gold in zip(predictions, golds, strict=True)
    ]
    url = output("answer", rows, [("gold", TEXTS), ("struct", struct), ("text", pa.string())])
    for column in ("gold", "struct", "text"):
        found = total(evaluate(url, column))
        assert found == pytest.approx(counts(3) | {"exact_match": 200 / 3, "f1": 100 * (1 + 2 / 3 + 1) / 3})


def test_fill_mask_counts_masks(output):
    rows = [
        fills(["x", "y"], ["b", "a"]) | {"gold": ["y", "b"]},
        fills(["c", "d"]) | {"gold": ["c", "e"], "truncated": True},
        ERROR | {"gold": ["f"]},
    ]
    url = output("fill_mask", rows, [("gold", TEXTS)], head={"top_k": 2})
    assert total(evaluate(url, "gold")) == pytest.approx(counts(3, 1) | {"accuracy": 0.4, "accuracy@2": 0.6})
    with pytest.raises(UnusableError, match="likelihood of texts"):
        module.find_scoring(
            module.Written("fill_mask", find("fill_mask", score=True), "", (), {}), pa.field("g", TEXTS)
        )


def find(task, **head):
    return module.find_task(task).Parameters.model_validate(head)


def test_a_row_with_a_mask_too_many_is_named(output):
    url = output("fill_mask", [fills(["x"]) | {"gold": ["x", "y"]}], [("gold", TEXTS)])
    with pytest.raises(UnusableError, match=r"part-00000000-.*'gold': 2 label\(s\) for 1 mask"):
        evaluate(url, "gold")


def test_generate_takes_the_prompt_away(output):
    done = {"n_new_tokens": 2, "finish_reason": "stop"}
    rows = [done | {"generated_text": "Say: the house", "prompt": "Say:", "gold": "House."}, ERROR | {"gold": "x"}]
    kept = [("prompt", pa.string()), *GOLD]
    assert total(evaluate(output("generate", rows, kept), "gold")) == counts(2, 1) | {"exact_match": 50, "f1": 50}


def test_generate_without_its_prompt_cannot_be_measured_but_without_full_text_it_can(tmp_path):
    from tests.evaluation.conftest import write_output

    row = {"generated_text": "the house", "n_new_tokens": 2, "finish_reason": "stop", "gold": "House."}
    kept = pa.schema(GOLD)
    with pytest.raises(UnusableError, match=r"add q to input.keep, or set head.return_full_text: false"):
        evaluate(write_output(tmp_path / "a", "generate", [row], kept, inputs={"prompt": "q"}), "gold")
    url = write_output(tmp_path / "b", "generate", [row], kept, head={"return_full_text": False})
    assert total(evaluate(url, "gold"))["exact_match"] == 100


SPAN = pa.struct([("entity_group", pa.string()), ("start", pa.int32()), ("end", pa.int32())])


def entity(group, start, end):
    return {"entity_group": group, "score": 0.5, "word": "w", "start": start, "end": end}


def test_tag_by_entities_measures_the_groups_that_the_job_writes(output):
    gold = [entity("PER", 0, 4), entity("LOC", 6, 8), entity("DATE", 9, 12)]
    rows = [{"entities": [entity("PER", 0, 4), entity("LOC", 6, 9)], "gold": gold}]
    url = output("tag", rows, [("gold", pa.list_(SPAN))], head={"labels": ["PER", "LOC"]})
    found = total(evaluate(url, "gold"))
    assert found == counts(1) | {"overall_precision": 0.5, "overall_recall": 0.5, "overall_f1": 0.5}


def test_tag_by_words_with_names_or_ids(output, tmp_path):
    RemBertConfig(id2label={0: "O", 1: "B-PER", 2: "I-PER"}).save_pretrained(str(tmp_path / "model"))
    rows = [
        {"entities": [], "tags": ["B-PER", "I-PER", "O"], "gold": ["B-PER", "I-PER", "O"], "ids": [1, 2, -100]},
        {"entities": [], "tags": ["O", None], "gold": ["B-PER", "O"], "ids": [1, 0]},
    ]
    kept = [("gold", TEXTS), ("ids", pa.list_(pa.int64()))]
    url = output("tag", rows, kept, inputs={"words": "words"}, model=tmp_path / "model")
    entities = {"overall_precision": 1, "overall_recall": 0.5, "overall_f1": 2 / 3}
    assert total(evaluate(url, "gold")) == pytest.approx(counts(2) | entities | {"overall_accuracy": 0.6})
    assert total(evaluate(url, "ids")) == pytest.approx(counts(2) | entities | {"overall_accuracy": 0.5})


def test_tags_of_words_need_a_job_that_read_words(output):
    url = output("tag", [{"entities": [], "gold": ["O"]}], [("gold", TEXTS)])
    with pytest.raises(UnusableError, match="labels of words, but the job read texts"):
        evaluate(url, "gold")


def test_the_one_head_of_several_that_has_a_metric_is_measured(output):
    heads = [{"task": "embed"}, {"task": "classify", "prefix": "topic_"}]
    rows = [
        {"embedding": None, **{f"topic_{name}": value for name, value in label("a").items()}, "label": gold}
        for gold in ("a", "b")
    ]
    url = output("several", rows, [("label", pa.string())], head={"heads": heads})
    assert total(evaluate(url, "label"))["accuracy"] == 0.5


def test_every_task_has_a_metric_or_says_what_to_do(output):
    assert set(task_names()) - SCORINGS.keys() == {"embed", "several"}
    url = output("embed", [ERROR], GOLD)
    with pytest.raises(UnusableError, match=r"task embed: there is no metric for what it writes.*retrieval"):
        evaluate(url, "not there")


def grouped(output, **options):
    rows = [label(found) | {"gold": gold, "language": language} for found, gold, language in [
        ("a", "a", "de"), ("a", "b", "zh"), ("b", "b", None), ("a", "a", "zh"), ("b", "b", "de"),
    ]]  # fmt: skip
    return output("classify", [*rows, ERROR | {"language": "de"}], [*GOLD, ("language", pa.string())], **options)


def test_groups_are_measured_on_their_own_and_add_up(output):
    found = evaluate(grouped(output, rows_per_shard=2), "gold", "language")
    rows = {
        name: (g.n_rows, g.n_errors, g.n_without_label, g.measure.metrics()["accuracy"])
        for name, g in found.groups.items()
    }
    assert rows == {"de": (3, 1, 1, 1.0), "zh": (2, 0, 0, 0.5), None: (1, 0, 0, 1.0)}
    assert total(found)["accuracy"] == 0.8
    assert found.total.n_rows == 6


def test_groups_may_be_a_dictionary_of_any_index(output):
    language = pa.dictionary(pa.uint8(), pa.string())
    rows = [label("a") | {"gold": "a", "language": name} for name in ("de", None, "zh", "de")]
    found = evaluate(output("classify", rows, [*GOLD, ("language", language)]), "gold", "language")
    assert {name: group.n_rows for name, group in found.groups.items()} == {"de": 2, None: 1, "zh": 1}


def test_a_person_sees_a_table_with_the_total_last(output):
    lines = list(evaluate(grouped(output, n_missing=1), "gold", "language").lines())
    assert lines == [
        "language  rows  errors  no label  accuracy      f1  precision  recall",
        "de           3       1         1    1.0000  1.0000     1.0000  1.0000",
        "zh           2       0         0    0.5000  0.3333     0.2500  0.5000",
        "(none)       1       0         0    1.0000  1.0000     1.0000  1.0000",
        "all          6       1         1    0.8000  0.8000     0.8333  0.8333",
        "note: 2 of 3 shards are there: the job is not complete",
        "note: rows with an error count as wrong (1)",
    ]


def test_a_program_gets_json(output):
    url = grouped(output)
    done = CliRunner().invoke(app, ["evaluate", url, "--labels", "gold", "--by", "language", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["total"]["accuracy"] == 0.8
    assert found["total"]["per_label"]["b"] == {"precision": 1, "recall": pytest.approx(2 / 3), "f1": 0.8, "number": 3}
    assert [group["value"] for group in found["groups"]] == ["de", "zh", None]
    assert (found["task"], found["n_shards"], found["n_planned_shards"]) == ("classify", 2, 2)


def test_names_that_never_match_are_said(output):
    url = output("classify", [label("LABEL_0") | {"gold": "sports"}], GOLD)
    assert "labels: sports; predicted: LABEL_0" in "".join(evaluate(url, "gold").notes())


def test_without_any_label_there_is_no_number(output):
    found = evaluate(output("classify", [label("a")], GOLD), "gold")
    assert found.total.to_dict()["accuracy"] is None
    assert "-" in list(found.lines())[1].split()
    assert "no row has a label in 'gold'" in list(found.notes())


@pytest.mark.parametrize(
    ("labels", "by", "said"),
    [
        ("glod", None, "--labels glod: the job kept no column 'glod' (add glod to input.keep"),
        ("glod", "lang", "--by lang: the job kept no column 'lang'"),
        ("label", None, "--labels label: the job wrote 'label' itself (name a column of input.keep"),
        ("flag", None, "--labels flag: a column of type bool cannot be the labels of task classify (keep a column of"),
        ("gold", "list", "--by list: a column of type list<element: string> makes no groups"),
        ("gold", "score_before", "--by score_before: a column of type float makes no groups"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_all_at_once(output, labels, by, said):
    url = output(
        "classify", [label("a")], [*GOLD, ("flag", pa.bool_()), ("list", TEXTS), ("score_before", pa.float32())]
    )
    with pytest.raises(UnusableError) as error:
        evaluate(url, labels, by)
    assert any(said in line for line in error.value.lines)
    assert len(error.value.lines) == 1 + (by == "lang")


def test_a_column_of_too_many_values_makes_no_groups(output, monkeypatch):
    monkeypatch.setattr(module, "MAX_GROUPS", 2)
    with pytest.raises(UnusableError, match="--by language: more than 2 values"):
        evaluate(grouped(output), "gold", "language")


def test_a_place_without_a_job_or_without_a_shard_is_refused(tmp_path, output):
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--labels", "gold"])
    assert done.exit_code == 2
    assert "there is no plan" in done.stderr
    with pytest.raises(UnusableError, match="no shard is finished yet"):
        evaluate(output("classify", [], GOLD, n_missing=1), "gold")
