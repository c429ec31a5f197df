"""Outputs as `classify` and `embed` jobs leave them, committed by what a job calls, without Ray or a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.fingerprint import Fingerprint
from rembert_ray.plan import InputNeeds, Plan, freeze_plan, make_plan
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.storage.listing import expand_input
from rembert_ray.storage.location import Location, locate
from rembert_ray.tasks.base import COMMON_FIELDS

ROWS_PER_SHARD = 100
BEGAN = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
Columns = Callable[[np.random.Generator, int], dict[str, pa.Array]]


def finish(
    folder: Path, task: str, columns: Columns, *, n_shards: int = 6, head: Mapping[str, Any] | None = None
) -> tuple[Location, Plan]:
    """An output of `n_shards` parts in `folder/out`; every 50th row has an error. `columns` makes the task's own."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    n_rows = n_shards * ROWS_PER_SHARD
    languages = [["de", "fr", "ja"][number % 3] for number in range(n_rows)]
    table = pa.table(
        {"id": range(n_rows), "language": languages, "text": [f"text {number}" for number in range(n_rows)]}
    )
    pq.write_table(table, corpus / "a.parquet")
    needs = InputNeeds(columns={"text": "text"}, keep=["id", "language"], max_rows=ROWS_PER_SHARD, max_bytes=2**20)
    record = {"manifest": {"task": task, "head": dict(head or {}), "input": {"path": str(corpus), "rename": {}}}}
    output = locate(str(folder / "out"))
    plan = make_plan(expand_input(str(corpus)), locate(str(corpus)), needs, Fingerprint({"task": task}), record)
    freeze_plan(output, plan)
    for shard in plan.iter_shards():
        generator = np.random.default_rng(shard.index)
        is_bad = np.arange(shard.n_rows) % 50 == 7
        own = {
            name: pa.array(values.to_pylist(), values.type, mask=is_bad)
            for name, values in columns(generator, shard.n_rows).items()
        }
        kept = table.slice(shard.row_start, shard.n_rows).select(["id", "language"])
        common = [
            generator.integers(3, 60, shard.n_rows),
            np.ones(shard.n_rows),
            np.zeros(shard.n_rows, bool),
            np.where(is_bad, "text is null", None),
        ]
        fields = zip(COMMON_FIELDS, common, strict=True)
        rows = pa.table(
            {
                **{n: kept[n] for n in kept.column_names},
                **own,
                **{f.name: pa.array(v.tolist(), f.type) for f, v in fields},
            }
        )
        n_tokens = int(common[0].sum())
        start = BEGAN + timedelta(seconds=10 * shard.index)
        facts = {
            "n_errors": str(int(is_bad.sum())),
            "n_tokens": str(n_tokens),
            "n_tokens_computed": str(n_tokens - 10),
            "n_windows": str(shard.n_rows),
            "n_batches": "2",
            "inferred_at": "host/1",
            "version_torch": "2.13.0",
        }
        for phase, after_s, takes_s in (("read", 0, 1), ("encode", 1, 2), ("infer", 3, 3), ("decode", 6, 4)):
            facts[f"{phase}_at"] = (start + timedelta(seconds=after_s)).isoformat()
            facts[f"{phase}_s"] = str(takes_s)
        part = Part(
            shard.index,
            plan.fingerprint.digest,
            plan.plan_id,
            shard.url,
            shard.row_start,
            shard.n_rows,
            f"run1-{shard.index}",
        )
        commit_part(output, part, rows, facts)
    return output, plan


def labels(shares: Mapping[str, float]) -> Columns:
    """Columns of `classify` with these labels."""

    def make(generator: np.random.Generator, n_rows: int) -> dict[str, pa.Array]:
        names = generator.choice(list(shares), n_rows, p=list(shares.values()))
        score = generator.uniform(0.5, 1, n_rows).astype(np.float32)
        best = [[{"label": name, "score": float(value)}] for name, value in zip(names, score, strict=True)]
        return {"label": pa.array(names, pa.string()), "score": pa.array(score), "scores": pa.array(best)}

    return make


def vectors(generator: np.random.Generator, n_rows: int) -> dict[str, pa.Array]:
    """Columns of `embed`: vectors of length 1."""
    numbers = generator.normal(size=(n_rows, 8)).astype(np.float32)
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
    return {"embedding": pa.array(list(numbers), pa.list_(pa.float32(), 8))}
