"""An output as a job leaves it, plan and parts, made of rows that a test writes by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rembert_ray.fingerprint import Fingerprint
from rembert_ray.models.config import RemBertConfig
from rembert_ray.plan import Plan, freeze_plan
from rembert_ray.plan_table import FILES_SCHEMA, SHARDS_SCHEMA
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import find_task, output_schema


def write_output(folder, task, rows, kept, *, head=None, model="nowhere", inputs=None, rows_per_shard=3, n_missing=0):
    """The URL of an output of these rows (dicts of the task's columns and kept ones); a row with `error` has no result.

    `kept` is the schema of the kept columns; the last `n_missing` shards are planned but not there.
    """
    kind = find_task(task)
    made = kind(kind.Parameters.model_validate(head or {}))
    if inputs:
        made.form = tuple(inputs)
    made.set_configs([RemBertConfig()] * len(made.parts(locate(model))))
    schema = output_schema(made, RemBertConfig(), kept)
    common = {"n_tokens": 1, "n_windows": 1, "truncated": False, "error": None}
    table = pa.Table.from_pylist([common | row for row in rows], schema)
    plan = make_plan(table.num_rows, kept, rows_per_shard, n_missing)
    manifest = {"task": task, "model": str(model), "head": head or {}, "input": {"columns": inputs or {}}}
    plan = Plan.build(plan.shards, plan.files, kept, plan.fingerprint, {"manifest": manifest})
    output = locate(str(folder))
    freeze_plan(output, plan)
    for shard in list(plan.iter_shards())[: plan.n_shards - n_missing]:
        part = Part(
            shard.index, plan.fingerprint.digest, plan.plan_id, shard.url, shard.row_start, shard.n_rows, "attempt"
        )
        commit_part(output, part, table.slice(shard.row_start, shard.n_rows), {})
    return str(folder)


def make_plan(n_rows, kept, rows_per_shard, n_missing):
    starts = np.arange(0, n_rows, rows_per_shard)
    sizes = np.minimum(rows_per_shard, n_rows - starts)
    sizes = np.append(sizes, np.full(n_missing, rows_per_shard))
    starts = np.append(starts, n_rows + np.arange(n_missing) * rows_per_shard)
    n_shards = len(starts)
    columns = [np.arange(n_shards), np.zeros(n_shards), starts, sizes, np.ones(n_shards)]
    arrays = [
        pa.array(column.astype(np.int64)).cast(field.type) for column, field in zip(columns, SHARDS_SCHEMA, strict=True)
    ]
    file = {"url": "/corpus/a.parquet", "size_bytes": 1, "version": "1", "file_rows": int(sizes.sum()), "partition": []}
    return Plan.build(
        pa.table(arrays, schema=SHARDS_SCHEMA),
        pa.Table.from_pylist([file], FILES_SCHEMA),
        kept,
        Fingerprint({"test": "evaluation"}),
        {},
    )


@pytest.fixture
def output(tmp_path):
    """`write_output` into a folder of the test."""

    def write(task, rows, kept, **options):
        return write_output(tmp_path / "out", task, rows, pa.schema(kept), **options)

    return write
