"""What a person sees of a sampled row: its result in its text, where it came from, and which row is like it.

The inputs of a row are read from its kept columns, else from the source file that the plan names, as long as it is
there, unchanged and allowed; a row without them can be shown, too. Nothing is drawn here: see `shown_terminal.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.errors import ShardError, StorageError, UnusableError, printable
from rembert_ray.plan import Plan
from rembert_ray.report.samples import Sample
from rembert_ray.stages.inputs import cast_input, read_inputs
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.location import locate
from rembert_ray.storage.parquet import read_rows
from rembert_ray.tasks.base import Task, find_task
from rembert_ray.text.shown import Shown

SOURCE_BUDGET_S = 10.0


def task_of(plan: Plan) -> Task:
    """The task of a stored plan, with its parameters, without a model."""
    manifest = plan.record["manifest"]
    kind = find_task(manifest["task"])
    task = kind(kind.Parameters.model_validate(manifest["head"]))
    named = manifest.get("input", {}).get("columns", {})
    task.form = next((form for form in task.input_forms if set(form) >= named.keys()), task.input_forms[0])
    return task


def kept_names(plan: Plan) -> list[str]:
    """The kept columns by their names in the output."""
    renamed = plan.record["manifest"].get("input", {}).get("rename", {})
    return [renamed.get(name, name) for name in plan.schema.names]


def with_inputs(samples: Sequence[Sample], plan: Plan, task: Task) -> list[Sample]:
    """The same samples with what the task read, where it can be had."""
    given = plan.record["manifest"].get("input", {})
    columns = {name: given.get("columns", {}).get(name, name) for name in task.form}
    kept = {name: given.get("rename", {}).get(column, column) for name, column in columns.items()}
    is_kept = set(columns.values()) <= set(plan.schema.names)
    found = []
    for sample in samples:
        if is_kept:
            inputs: dict[str, Any] | None = {name: sample.values[column] for name, column in kept.items()}
        else:
            inputs = _read_source(sample, plan, columns)
        if inputs is not None and any(value is None for value in inputs.values()):
            inputs = None
        found.append(replace(sample, inputs=inputs))
    return found


def view(sample: Sample, plan: Plan, task: Task) -> Shown:
    """What there is to see of a row: its result in its text, or its error, and its kept columns."""
    own = sample.values
    if sample.error is not None:
        shown = Shown(text=_input_text(sample.inputs)).plus(("error", sample.error))
    else:
        shown = task.show(own, sample.inputs)
        size = (
            f"{own['n_tokens']:,} in {own['n_windows']:,} windows" if own["n_windows"] > 1 else f"{own['n_tokens']:,}"
        )
        shown = shown.plus(("tokens", size + (", truncated" if own["truncated"] else "")))
    read = set() if sample.inputs is None else {str(value) for value in sample.inputs.values()}
    kept = ((name, str(own[name])) for name in kept_names(plan) if name in own)
    return shown.plus(*((name, value) for name, value in kept if value not in read))


def nearest_of(samples: Sequence[Sample], task: Task) -> dict[int, tuple[int, float]]:
    """For vectors: position of a sample -> that of the other one with the largest cosine, and this cosine."""
    for _, prefix, head in task.heads():
        if head.name == "embed":
            vectors = {number: _vector(sample, prefix) for number, sample in enumerate(samples)}
            return _nearest({number: vector for number, vector in vectors.items() if vector is not None})
    return {}


def _vector(sample: Sample, prefix: str) -> NDArray[np.float64] | None:
    """The vector of a row, of several ones their mean; None where it has none."""
    values = sample.values
    parts = [part["embedding"] for part in values.get(prefix + "embeddings") or []]
    vectors = [values[prefix + "embedding"]] if values.get(prefix + "embedding") is not None else parts
    return np.mean(np.array(vectors, np.float64), axis=0) if vectors else None


def _nearest(vectors: Mapping[int, NDArray[np.float64]]) -> dict[int, tuple[int, float]]:
    if len(vectors) < 2:
        return {}
    numbers, matrix = list(vectors), np.stack(list(vectors.values()))
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    cosines = matrix @ matrix.T
    np.fill_diagonal(cosines, -np.inf)
    best = cosines.argmax(axis=1).tolist()
    return {numbers[row]: (numbers[other], float(cosines[row, other])) for row, other in enumerate(best)}


def line_of(sample: Sample, plan: Plan, task: Task) -> str:
    """A row as one line for a log: its result, or why it has none, from which row and with which kept columns."""
    if sample.error is None:
        return printable(task.render(sample.values))
    kept = {name: sample.values[name] for name in kept_names(plan) if name in sample.values}
    return printable(f"{sample.error}: {kept} ({sample.source} row {sample.source_row})")


def json_of(sample: Sample) -> dict[str, Any]:
    """A row with its source as JSON can hold it: numbers that are not finite are null, bytes and times are text."""
    values: dict[str, Any] = _plain(vars(sample))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _read_source(sample: Sample, plan: Plan, columns: Mapping[str, str]) -> dict[str, Any] | None:
    """What the task read, from the file that the plan names; None where that is not possible."""
    source = locate(sample.source)
    planned = plan.shard(sample.shard).planned
    if AllowedRoots.given().faults("source", sample.source):
        return None
    try:
        names = list(dict.fromkeys(columns.values()))
        table = read_rows(source, sample.source_row, 1, names, planned=planned, budget_s=SOURCE_BUDGET_S)
        values, errors = read_inputs({name: cast_input(name, table[column]) for name, column in columns.items()})
    except (ShardError, StorageError, UnusableError, pa.ArrowException):
        return None
    return None if errors[0] is not None else {name: value[0] for name, value in values.items()}


def _input_text(inputs: Mapping[str, Any] | None) -> str:
    texts = (value if isinstance(value, str) else " ".join(value) for value in (inputs or {}).values())
    return "\n".join(texts)
