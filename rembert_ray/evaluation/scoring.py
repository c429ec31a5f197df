"""Which measure belongs to a task and a kind of labels, and how the task's columns become its predictions.

One line of `SCORINGS` is one task; a task that is not there has no metric. This file reads no data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.evaluation import label_measures, measures
from rembert_ray.evaluation.label_columns import KINDS, Kind, in_lists, kind_of, named
from rembert_ray.models.config import AutoConfig, EncoderConfig

N_BEST = 5
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Written:
    """What a job wrote: by which task, with which parameters (defaults included) and model, into which columns.

    - `prefix`: before the names of the task's columns.
    - `columns`: all columns of the output. `inputs`: the task's word for a column it read -> its name.
    """

    task: str
    parameters: Any
    model: str
    columns: tuple[str, ...]
    inputs: Mapping[str, str]
    prefix: str = ""

    @property
    def config(self) -> EncoderConfig:
        """The model's configuration, read now; asked only where labels are numbers."""
        return AutoConfig.from_pretrained(self.model)


@dataclass(frozen=True)
class Scoring:
    """How rows become predictions and labels.

    - `measure`: makes an empty measure.
    - `columns`: the columns it needs, without the labels.
    - `predict`: a table of these columns, without prefix, to predictions, null for a row with an error.
    - `read`: labels as `label_columns.read_labels` gives them to those of the measure.
    """

    measure: Callable[[], measures.Measure]
    columns: tuple[str, ...]
    predict: Callable[[pa.Table], pa.Array]
    read: Callable[[pa.Array], pa.Array] = lambda labels: labels


def check_task(task: str) -> None:
    """Refuse a task without a metric.

    Raises:
        UnusableError: it has none.
    """
    if task not in SCORINGS:
        fix = "take its result to a task of yours, e.g. retrieval or clustering, and measure that"
        raise UnusableError(Fault(f"task {task}", "there is no metric for what it writes", fix))


def find_scoring(written: Written, labels: pa.Field) -> tuple[Kind, Scoring]:
    """The kind of the labels and what to do with them; the task has a metric.

    Raises:
        UnusableError: the task cannot be measured with such labels, or not what this job wrote of it.
    """
    known = SCORINGS[written.task]
    kind = kind_of(labels.type)
    if kind is None or kind not in known:
        accepted = ", or ".join(KINDS[name] for name in known)
        what = f"a column of type {labels.type} cannot be the labels of task {written.task}"
        raise UnusableError(Fault(f"--labels {labels.name}", what, f"keep a column of {accepted}"))
    return kind, known[kind](written)


def _single_label(written: Written) -> Scoring:
    return Scoring(label_measures.SingleLabel, ("label",), lambda rows: _only(rows, "label"))


def _class_ids(written: Written) -> Scoring:
    config = written.config
    if config.problem_type == "regression":
        return _regression(written)
    return _from_ids(_single_label(written), written)


def _regression(written: Written) -> Scoring:
    config = written.config
    if len(config.labels) != 1:
        what = f"the labels are numbers, but the model tells {len(config.labels)} classes apart"
        raise UnusableError(Fault(written.model, what, "keep a column with the names or the numbers of the classes"))
    double = pa.float64()
    return Scoring(
        measures.Regression,
        ("score",),
        lambda rows: _only(rows, "score").cast(double),
        lambda labels: labels.cast(double),
    )


def _multi_label_ids(written: Written) -> Scoring:
    return _from_ids(_multi_label(written), written)


def _multi_label(written: Written) -> Scoring:
    given = written.parameters.threshold
    threshold = DEFAULT_THRESHOLD if given is None else given

    def predict(rows: pa.Table) -> pa.Array:
        kept = [
            None if scores is None else [one["label"] for one in scores if one["score"] >= threshold]
            for scores in rows["scores"].to_pylist()
        ]
        return pa.array(kept, pa.list_(pa.string()))

    return Scoring(label_measures.MultiLabel, ("scores",), predict)


def _choice_index(written: Written) -> Scoring:
    return Scoring(measures.Accuracy, ("choice",), lambda rows: _only(rows, "choice").cast(pa.int64()))


def _choice_text(written: Written) -> Scoring:
    return Scoring(measures.Accuracy, ("choice_text",), lambda rows: _only(rows, "choice_text"))


def _answer(written: Written) -> Scoring:
    def predict(rows: pa.Table) -> pa.Array:
        best = [
            None if answers is None else answers[0]["answer"] if answers else ""
            for answers in rows["answers"].to_pylist()
        ]
        return pa.array(best, pa.string())

    return Scoring(measures.Answers, ("answers",), predict)


def _generated(written: Written) -> Scoring:
    text = "generated_text"
    if not written.parameters.return_full_text:
        return Scoring(measures.Answers, (text,), lambda rows: _only(rows, text))
    prompt = written.inputs.get("prompt", "prompt")
    if prompt not in written.columns:
        what = f"the prompt stands in front of each text, and {prompt!r} is not in the output to take it away"
        fix = f"add {prompt} to input.keep, or set head.return_full_text: false, and run into a new output.path"
        raise UnusableError(Fault(f"task {written.task}", what, fix))

    def predict(rows: pa.Table) -> pa.Array:
        pairs = zip(rows[text].to_pylist(), rows[prompt].to_pylist(), strict=True)
        return pa.array([None if whole is None else whole[len(first) :] for whole, first in pairs], pa.string())

    return Scoring(measures.Answers, (text, prompt), predict)


def _fills(written: Written) -> Scoring:
    if written.parameters.score:
        what = "head.score: true wrote the likelihood of texts, no words for their masks"
        raise UnusableError(Fault("task fill_mask", what, "run it without head.score"))
    n_best = min(N_BEST, written.parameters.top_k)

    def predict(rows: pa.Table) -> pa.Array:
        words = [
            None if masks is None else [[fill["token_str"] for fill in mask[:n_best]] for mask in masks] + [None] * cut
            for masks, cut in zip(rows["fills"].to_pylist(), rows["truncated"].to_pylist(), strict=True)
        ]
        return pa.array(words, pa.list_(pa.list_(pa.string())))

    return Scoring(lambda: measures.Fills(n_best), ("fills", "truncated"), predict)


def _word_tags(written: Written) -> Scoring:
    if "tags" not in written.columns:
        what = "labels of words, but the job read texts"
        fix = "run with input.columns: {words: <column>}, or keep labels as lists of entity_group, start and end"
        raise UnusableError(Fault("task tag", what, fix))
    return Scoring(label_measures.WordTags, ("tags",), lambda rows: _only(rows, "tags"))


def _tag_ids(written: Written) -> Scoring:
    return _from_ids(_word_tags(written), written)


def _entities(written: Written) -> Scoring:
    parameters = written.parameters
    if parameters.aggregation == "none":
        what = "head.aggregation: none wrote tokens, not entities"
        raise UnusableError(Fault("task tag", what, "run with head.aggregation: simple or first"))

    def is_written(group: str) -> bool:
        return group not in parameters.ignore_labels and (parameters.labels is None or group in parameters.labels)

    def read(labels: pa.Array) -> pa.Array:
        rows = [
            None if row is None else [one for one in row if is_written(one["entity_group"])]
            for row in labels.to_pylist()
        ]
        return pa.array(rows, labels.type)

    return Scoring(label_measures.Entities, ("entities",), lambda rows: _only(rows, "entities"), read)


def _from_ids(scoring: Scoring, written: Written) -> Scoring:
    names = written.config.labels
    return replace(scoring, read=lambda ids: named(ids, names))


def _listed(make: Callable[[Written], Scoring]) -> Callable[[Written], Scoring]:
    """The same for labels of one text each."""
    return lambda written: replace(make(written), read=in_lists)


def _only(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks()


SCORINGS: dict[str, dict[Kind, Callable[[Written], Scoring]]] = {
    "answer": {"texts": _answer, "text": _listed(_answer)},
    "choose": {"integer": _choice_index, "text": _choice_text},
    "classify": {
        "text": _single_label,
        "integer": _class_ids,
        "number": _regression,
        "texts": _multi_label,
        "integers": _multi_label_ids,
    },
    "fill_mask": {"texts": _fills, "text": _listed(_fills)},
    "generate": {"texts": _generated, "text": _listed(_generated)},
    "tag": {"texts": _word_tags, "integers": _tag_ids, "entities": _entities},
}
