"""A dry run: the first rows of some shards go through read, encode, infer and decode in this process, and are shown.

Everything is checked and planned as for a run. No Ray is started and nothing is written, so it cannot tell how fast a
job will be, only that it will work and what its rows look like.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from rich.console import Console

from rembert_ray.check import CheckedJob, check_job
from rembert_ray.errors import Fault, ShardError, UnusableError, printable
from rembert_ray.job_spec import job_spec
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import Plan, Shard, describe
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.spec import JobSpec
from rembert_ray.stages.write import decode
from rembert_ray.storage.allowed import AllowedRoots

N_ROWS = 8
TIMES_AS_LARGE = 20
EXIT_GOOD, EXIT_NOTHING_WORKED = 0, ShardError.exit_code


def dry_run(
    manifest_url: str, overrides: Sequence[str] = (), allow_roots: Sequence[str] = (), console: Console | None = None
) -> int:
    """Check and plan a job, try eight rows and show what becomes of them. Exit code 3: not one of them worked.

    Raises:
        RembertRayError: the job cannot be run; the error carries its exit code.
    """
    console = console or Console(soft_wrap=True, highlight=False)
    allowed = AllowedRoots.given(allow_roots)
    checked = check_job(load_manifest(manifest_url, overrides, allowed), allowed, for_writing=False)
    console.print(describe(checked.plan), markup=False)
    for warning in checked.warnings:
        console.print(f"warning     {warning}", markup=False)
    _refuse_without_gpu(checked)
    n_good = 0
    for is_good, line in try_rows(checked):
        n_good += is_good
        console.print(printable(line), markup=False)
    console.print("dry run     nothing was started or written", markup=False)
    return EXIT_GOOD if n_good else EXIT_NOTHING_WORKED


def try_rows(checked: CheckedJob, n_rows: int = N_ROWS) -> Iterator[tuple[bool, str]]:
    """Rows as lines, whether each of them worked, and what took how long."""
    spec = job_spec(checked, checked.plan, "dry-run")
    places = list(spread_rows(checked.plan, n_rows))
    started = time.perf_counter()
    from rembert_ray.stages.infer import Infer

    encode, infer = Encode(spec), Infer(spec)
    yield False, f"load        {time.perf_counter() - started:.1f} s for torch, the tokenizer and the model"
    infer_s = 0.0
    for place in places:
        envelope = Envelope(place)
        where = f"{place.url}, row {place.row_start}"
        try:
            rows = decode(_table_of(infer.infer(encode.encode(envelope))), spec)
        except ShardError as error:
            yield False, f"failed      {where}: {error}"
            continue
        finally:
            infer_s += envelope.facts.get("infer_s", 0.0)
        for row in rows.to_pylist():
            is_good = row["error"] is None
            yield is_good, f"{'row' if is_good else 'error':<12}{_render(spec, row)}"
    yield False, f"infer       {infer_s:.2f} s in {len(places)} passes, which a job would do in one"


def _table_of(envelope: Envelope) -> pa.Table:
    assert envelope.table is not None
    return envelope.table


def _render(spec: JobSpec, row: dict[str, object]) -> str:
    if row["error"] is None:
        return spec.task.render(row)
    names = [spec.renamed.get(name, name) for name in spec.kept.names]
    kept = {name: row[name] for name in names}
    return f"{row['error']}: {kept}"


def spread_rows(plan: Plan, n_rows: int) -> Iterator[Shard]:
    """Rows that lie evenly over the plan, each as a shard of one row; several of a shard where there are few shards.

    Not of shards whose rows are many times as large as usual: a book among sentences would keep everybody waiting.
    """
    bytes_per_row = plan.shards["bytes"].to_numpy() / np.maximum(plan.shards["n_rows"].to_numpy(), 1)
    usual = np.flatnonzero(bytes_per_row <= TIMES_AS_LARGE * np.median(bytes_per_row))
    chosen = usual[np.unique(np.linspace(0, len(usual) - 1, n_rows).astype(np.int64))]
    for shard in plan.iter_shards(chosen):
        n_here = min(shard.n_rows, -(-n_rows // len(chosen)))
        for number in range(n_here):
            yield replace(shard, row_start=shard.row_start + number * shard.n_rows // n_here, n_rows=1)


def _refuse_without_gpu(checked: CheckedJob) -> None:
    if not checked.manifest.resources.gpus_per_actor:
        return
    import torch

    if not torch.cuda.is_available():
        where = checked.manifest.where("resources.gpus_per_actor")
        fix = "start the dry run on a machine with a GPU, or with --set resources.gpus_per_actor=0"
        raise UnusableError(Fault(where, "this process has no GPU", fix))
