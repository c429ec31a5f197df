"""What each task shows of a row and takes as its outcome, on rows written by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rembert_ray.models.config import RemBertConfig
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import find_task, output_schema, task_names
from rembert_ray.text.shown import Bar, Mark
from tests.written_jobs import COMMON, entities, label

ERROR = {"error": "text is null"}
TEXT = "Ann met Bob"


def make(name, form=None, **head):
    kind = find_task(name)
    task = kind(kind.Parameters.model_validate(head))
    if form:
        task.form = form
    return task


def table(task, *rows):
    config = RemBertConfig(hidden_size=4, num_attention_heads=1)
    task.set_configs([config] * len(task.parts(locate("nowhere"))))
    return pa.Table.from_pylist([COMMON | row for row in rows], output_schema(task, config, pa.schema([])))


def answers(*found):
    return {"answers": [dict(zip(("answer", "score", "start", "end"), one, strict=True)) for one in found]}


def fills(*masks):
    return {
        "fills": [
            [{"token_str": word, "score": score, "token": 1, "sequence": "filled"} for word, score in mask]
            for mask in masks
        ]
    }


def test_every_task_has_both():
    for name in task_names():
        kind = find_task(name)
        assert not kind.__abstractmethods__


def test_tag_marks_entities_in_the_text_and_without_it_its_words():
    row = entities(TEXT, (0, 3, "PER"), (8, 11, "PER"))
    shown = make("tag").show(row, {"text": TEXT})
    assert (shown.text, [(mark.start, mark.end, mark.label) for mark in shown.marks]) == (
        TEXT,
        [(0, 3, "PER"), (8, 11, "PER")],
    )
    alone = make("tag").show(row, None)
    assert [alone.text[mark.start : mark.end] for mark in alone.marks] == ["Ann", "Bob"]
    words = make("tag", ("words",)).show(row, {"words": ["Ann", "met", "Bob"]})
    assert (words.text, words.marks) == (TEXT, shown.marks)
    assert make("tag").show({"entities": []}, None).text == ""


def test_tag_takes_places_and_labels():
    task = make("tag")
    rows = table(task, entities(TEXT, (0, 3, "PER"), (8, 11, "LOC")), ERROR, entities(TEXT))
    assert task.outcome(rows).text.to_pylist() == ["0-3:PER 8-11:LOC", None, ""]
    assert task.steps("0-3:PER 8-11:LOC", "0-3:ORG 4-7:X 8-11:LOC") == [("PER", "ORG"), ("no entity", "X")]
    assert task.steps("", "0-3:A:B") == [("no entity", "A:B")]


def test_classify_has_bars_for_shares_and_facts_for_anything_else():
    shown = make("classify").show(label("de", 0.75), {"text": TEXT})
    assert (shown.text, shown.bars) == (TEXT, (Bar("de", 0.75),))
    regression = make("classify").show(label("LABEL_0", 3.5), None)
    assert (regression.text, regression.bars, regression.facts) == ("", (), (("LABEL_0", "3.500"),))
    pair = make("classify", ("text", "pair")).show(label("x"), {"text": "a", "pair": "b"})
    assert pair.text == "a\nb"


def test_classify_takes_the_label_or_all_that_are_written():
    task = make("classify")
    found = task.outcome(table(task, label("de", 0.5), ERROR))
    assert (found.text.to_pylist(), found.score.to_pylist()) == (["de", None], [0.5, None])
    both = {"label": "b", "score": 0.9, "scores": [{"label": "b", "score": 0.9}, {"label": "a", "score": 0.6}]}
    task = make("classify", threshold=0.5, function="sigmoid")
    assert task.outcome(table(task, both, label(None, None))).text.to_pylist() == ["a b", ""]


def test_answer_marks_answers_in_their_context():
    row = answers(("Bob", 0.9, 8, 11), ("", 0.1, 0, 0)) | {"null_score": 0.1}
    shown = make("answer").show(row, {"question": "Whom?", "context": TEXT})
    assert (shown.title, shown.text, shown.marks[0]) == ("Whom?", TEXT, Mark(8, 11, "answer 1", 0.9))
    assert ("answer 2", "no answer (0.100)") in shown.facts
    assert ("answer 1", "Bob (0.900)") in make("answer").show(row, None).facts
    assert ("answer", "none") in make("answer").show(answers() | {"null_score": 0.1}, None).facts
    task = make("answer")
    found = task.outcome(table(task, row, ERROR, answers() | {"null_score": 0.1}))
    assert found.text.to_pylist() == ["Bob @ 8-11", None, ""]
    assert found.score.to_pylist() == pytest.approx([np.float32(0.9), None, None])


def test_choose_has_a_bar_for_each_choice():
    row = {"choice": 1, "choice_text": "b", "score": 0.75, "scores": [0.25, 0.75]}
    task = make("choose")
    shown = task.show(row, {"prompt": "Which?", "choices": ["a", "b"]})
    assert (shown.text, shown.bars) == ("Which?", (Bar("a", 0.25), Bar("b", 0.75)))
    assert task.show(row, None).bars == (Bar("choice 0", 0.25), Bar("b", 0.75))
    assert task.outcome(table(task, row, ERROR)).text.to_pylist() == ["1: b", None]


def test_fill_mask_has_bars_for_each_mask_or_a_likelihood():
    row = fills([("Ann", 0.75), ("Bob", 0.25)], [("met", 0.5)])
    task = make("fill_mask")
    shown = task.show(row, {"text": "[MASK] [MASK] Bob"})
    assert [(mark.start, mark.end, mark.label) for mark in shown.marks] == [(0, 6, "mask 1"), (7, 13, "mask 2")]
    assert shown.bars == (Bar("Ann", 0.75, "mask 1"), Bar("Bob", 0.25, "mask 1"), Bar("met", 0.5, "mask 2"))
    assert task.show(row, None).text == "filled"
    found = task.outcome(table(task, row, ERROR, fills([("x", 0.5)])))
    assert (found.text.to_pylist(), found.score.to_pylist()) == (["Ann | met", None, "x"], [0.75, None, 0.5])
    scored = make("fill_mask", score=True)
    row = {"pll": -2.0, "n_scored": 2}
    assert dict(scored.show(row, None).facts)["pseudo-perplexity"] == "2.7"
    found = scored.outcome(table(scored, row, ERROR))
    assert (found.text, found.score.to_pylist()) == (None, [-2.0, None])


@pytest.mark.parametrize("is_full", [True, False])
def test_generate_marks_what_is_new(is_full):
    row = {"generated_text": "Ann met" if is_full else " met", "n_new_tokens": 1, "finish_reason": "stop"}
    task = make("generate", return_full_text=is_full)
    shown = task.show(row, {"prompt": "Ann"})
    assert (shown.text, shown.marks) == ("Ann met", (Mark(3, 7, "generated"),))
    assert bool(task.show(row, None).marks) != is_full
    assert task.outcome(table(task, row, ERROR)).text.to_pylist() == [row["generated_text"], None]


def test_embed_shows_the_norm_and_takes_vectors():
    task = make("embed")
    shown = task.show({"embedding": [3.0, 4.0, 0.0, 0.0]}, {"text": TEXT})
    assert shown.text == TEXT
    assert {"dimensions": "4", "norm": "5.000"}.items() <= dict(shown.facts).items()
    found = task.outcome(table(task, {"embedding": [1.0, 2.0, 3.0, 4.0]}, ERROR, {"embedding": [4.0, 3.0, 2.0, 1.0]}))
    assert found.text is None
    assert found.vectors.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0], [4, 3, 2, 1]]


def test_embed_with_several_vectors_takes_their_mean():
    task = make("embed", vectors="sentence")
    parts = [{"start": 0, "end": 3, "embedding": [1.0] * 4}, {"start": 4, "end": 11, "embedding": [3.0] * 4}]
    shown = task.show({"embeddings": parts}, {"text": TEXT})
    assert [mark.label for mark in shown.marks] == ["sentence 1", "sentence 2"]
    assert task.show({"embeddings": []}, {"text": TEXT}).facts == (("vectors", "0"),)
    found = task.outcome(table(task, {"embeddings": parts}, ERROR, {"embeddings": []}))
    assert found.vectors.tolist() == [[2] * 4, [0] * 4, [0] * 4]


def test_several_shows_what_its_heads_show():
    heads = [{"task": "tag"}, {"task": "classify", "prefix": "lang_"}, {"task": "embed"}]
    task = make("several", heads=heads)
    row = entities(TEXT, (0, 3, "PER")) | {f"lang_{key}": value for key, value in label("en").items()}
    row |= {"embedding": [1.0, 0.0, 0.0, 0.0]}
    shown = task.show(row, {"text": TEXT})
    assert (shown.text, [mark.label for mark in shown.marks]) == (TEXT, ["PER"])
    assert shown.bars == (Bar("en", 0.9, "lang"),)
    assert dict(shown.facts)["norm"] == "1.000"
    assert [(name, prefix) for name, prefix, _ in task.heads()] == [("tag", ""), ("lang", "lang_"), ("embed", "")]
    assert [mark.label for mark in task.show(row, None).marks] == ["PER"]
    table(task, row)
