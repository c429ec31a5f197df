"""`rembert-ray evaluate`: the output of a job against labels that it kept, part by part, without Ray or torch.

It opens the output, groups rows and collects what the measures say; what is measured is the business of `scoring.py`.
Memory holds one part, and one measure for each group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.evaluation.label_columns import MismatchError, read_labels
from rembert_ray.evaluation.result import Evaluation, Group
from rembert_ray.evaluation.scoring import SCORINGS, Written, check_task, find_scoring
from rembert_ray.plan import Plan, require_plan
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.tasks.base import find_task
from rembert_ray.tasks.several import SeveralParameters

MAX_GROUPS = 10_000


def evaluate(output: str, labels: str, by: str | None = None) -> Evaluation:
    """Metrics of a job's output, complete or not.

    Args:
        output: path or URL.
        labels: the kept column with the gold labels; what it may hold depends on the task (`scoring.SCORINGS`).
        by: a kept column; the rows of each of its values are measured on their own, too.

    Raises:
        UnusableError: no job there, no such column, labels that the task cannot be measured with.
        ShardError, StorageError: a part is damaged, or the store gives out.
    """
    location, plan, parts = _open(output)
    digest = plan.fingerprint.digest
    schema = read_footer(location.child(part_name(int(parts[0]), digest))).schema.to_arrow_schema()
    written = _find_written(plan, tuple(schema.names))
    _check_columns(plan, schema, labels, by)
    kind, scoring = find_scoring(written, schema.field(labels))
    found = Evaluation(written.task, labels, by, len(parts), plan.n_shards, scoring.measure)
    columns = [written.prefix + name for name in scoring.columns]
    wanted = list(dict.fromkeys([*columns, labels, "error", *([] if by is None else [by])]))
    for shard in plan.iter_shards(parts):
        part = location.child(part_name(shard.index, digest))
        rows = read_rows(part, 0, shard.n_rows, wanted)
        try:
            gold = scoring.read(read_labels(rows[labels], kind))
            predictions = scoring.predict(rows.select(columns).rename_columns(list(scoring.columns)))
            _add_part(found, rows, predictions, gold)
        except MismatchError as error:
            fix = f"is {labels!r} the right column?"
            raise UnusableError(Fault(f"{part}: column {labels!r}", str(error), fix)) from error
    return found


def _open(output: str) -> tuple[Location, Plan, NDArray[np.int64]]:
    """The place, the plan and the committed shards, at least one."""
    location = locate(output)
    plan = require_plan(output)
    parts = list_parts(location, plan.fingerprint.digest)
    if not len(parts):
        raise UnusableError(Fault(output, "no shard is finished yet", f"see rembert-ray status {output}"))
    return location, plan, parts


def _add_part(found: Evaluation, rows: pa.Table, predictions: pa.Array, gold: pa.Array) -> None:
    """Add a part to the total and to the groups; labels are null where a row has none."""
    has_error, has_label = (np.asarray(column.is_valid()) for column in (rows["error"], gold))
    for group, index in _groups_of(found, rows):
        scored = pa.array(index[has_label[index]])
        group.n_rows += len(index)
        group.n_errors += int(has_error[index].sum())
        group.n_without_label += len(index) - len(scored)
        group.measure.add(predictions.take(scored), gold.take(scored))


def _groups_of(found: Evaluation, rows: pa.Table) -> Iterator[tuple[Group, NDArray[np.int64]]]:
    """The groups of a part and which of its rows each has, in order; all rows for a job that is not grouped."""
    if found.by is None:
        yield found.group(None), np.arange(rows.num_rows)
        return
    values = rows[found.by].combine_chunks()
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    codes = np.asarray(encoded.indices.cast(pa.int64()).fill_null(-1))
    order = np.argsort(codes, kind="stable")
    names = encoded.dictionary.to_pylist()
    for index in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        code = codes[index[0]]
        group = found.group(None if code < 0 else names[code])
        if len(found.groups) > MAX_GROUPS:
            what = f"more than {MAX_GROUPS:,} values"
            raise UnusableError(Fault(f"--by {found.by}", what, "name a column that makes groups, such as a language"))
        yield group, index


def _check_columns(plan: Plan, schema: pa.Schema, labels: str, by: str | None) -> None:
    faults = []
    for option, name in (("--labels", labels), ("--by", by)):
        if name is None or name in plan.schema.names:
            continue
        if name in schema.names:
            what, fix = f"the job wrote {name!r} itself", "name a column of input.keep"
        else:
            what = f"the job kept no column {name!r}"
            fix = f"add {name} to input.keep and run into a new output.path"
        kept = nearest(name, plan.schema.names) if plan.schema.names else "it kept none"
        faults.append(Fault(f"{option} {name}", what, f"{fix}; {kept}"))
    column = None if faults or by is None else schema.field(by).type
    if column is not None and (pa.types.is_nested(column) or pa.types.is_floating(column)):
        what = f"a column of type {column} makes no groups"
        faults.append(Fault(f"--by {by}", what, "name a column of text or whole numbers, such as a language"))
    if faults:
        raise UnusableError(faults)


def _find_written(plan: Plan, columns: tuple[str, ...]) -> Written:
    """What to measure: the job's task, or the one head of several that can be measured."""
    manifest = plan.record["manifest"]
    model, inputs = manifest["model"], manifest["input"]["columns"]
    parameters = find_task(manifest["task"]).Parameters.model_validate(manifest["head"])
    if not isinstance(parameters, SeveralParameters):
        check_task(manifest["task"])
        return Written(manifest["task"], parameters, model, columns, inputs)
    heads = [head for head in parameters.heads if head.task in SCORINGS]
    if len(heads) != 1:
        what = f"{len(heads)} of its {len(parameters.heads)} heads can be measured"
        raise UnusableError(Fault("task several", what, "run the one to be measured as a job of its own"))
    (head,) = heads
    return Written(head.task, head.make().parameters, head.model or model, columns, inputs, head.prefix)
