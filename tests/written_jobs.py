"""A job's corpus, plan and parts, of rows that a test writes by hand: what the task read, and what it came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.fingerprint import Fingerprint
from rembert_ray.footers import InputNeeds
from rembert_ray.models.config import RemBertConfig
from rembert_ray.plan import Plan, freeze_plan, make_plan
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.storage.listing import expand_input
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import read_rows
from rembert_ray.storage.put import put_new
from rembert_ray.tasks.base import LIST_COLUMNS, find_task, output_schema

COMMON = {"n_tokens": 1, "n_windows": 1, "truncated": False, "error": None}
Row = dict[str, Any]


def write_corpus(folder: Location, files: Mapping[str, list[Row]]) -> None:
    """Parquet files of these rows."""
    for name, rows in files.items():
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        put_new(folder.child(name), sink.getvalue().to_pybytes())


def write_job(
    output: Location,
    corpus: Location,
    task: str,
    results: Mapping[str, list[Row]],
    *,
    inputs: Sequence[str] = ("text",),
    keep: Sequence[str] = (),
    head: Mapping[str, Any] | None = None,
    rows_per_shard: int = 3,
    without: Iterable[int] = (),
    hidden_size: int = 4,
    fingerprint: Mapping[str, Any] | None = None,
) -> Plan:
    """An output of these results, file by file; kept columns come from the corpus. `without`: shards not there."""
    kind = find_task(task)
    made = kind(kind.Parameters.model_validate(head or {}))
    made.form = tuple(inputs)
    config = RemBertConfig(hidden_size=hidden_size, num_attention_heads=1)
    made.set_configs([config] * len(made.parts(locate("nowhere"))))
    needs = InputNeeds(
        {name: name for name in inputs}, keep, rows_per_shard, 2**20, dict.fromkeys(LIST_COLUMNS, "text_list")
    )
    manifest = {
        "task": task,
        "model": "nowhere",
        "head": dict(head or {}),
        "input": {"path": str(corpus), "columns": {name: name for name in inputs}, "keep": list(keep), "rename": {}},
        "output": {"path": str(output)},
    }
    marks = Fingerprint({"task": task, **(fingerprint or {})})
    plan = make_plan(expand_input(str(corpus)), corpus, needs, marks, {"manifest": manifest})
    freeze_plan(output, plan)
    schema = output_schema(made, config, plan.schema)
    for shard in plan.iter_shards():
        if shard.index in set(without):
            continue
        name = shard.url.rsplit("/", 1)[1]
        rows = results[name][shard.row_start : shard.row_start + shard.n_rows]
        read = read_rows(locate(shard.url), shard.row_start, shard.n_rows).to_pylist()
        together = [COMMON | {key: of[key] for key in keep} | row for of, row in zip(read, rows, strict=True)]
        table = pa.Table.from_pylist(together, schema)
        part = Part(
            shard.index, plan.fingerprint.digest, plan.plan_id, shard.url, shard.row_start, shard.n_rows, "attempt"
        )
        commit_part(output, part, table, {})
    return plan


def label(name: str | None, score: float | None = 0.9) -> Row:
    """What `classify` writes."""
    return {"label": name, "score": score, "scores": [] if name is None else [{"label": name, "score": score}]}


def entities(text: str, *found: tuple[int, int, str]) -> Row:
    """What `tag` writes of a text."""
    return {
        "entities": [
            {"entity_group": name, "score": 0.9, "word": text[start:end], "start": start, "end": end}
            for start, end, name in found
        ]
    }
