"""The plan: the frozen list of shards, made once from Parquet footers and stored beside the output.

A plan depends on the input files and the fingerprint and nothing else: not on the cluster, not on the time. It is
stored as `<output>/_rembert_ray/plan.parquet`, created once and never replaced. What is stored rules: on resume
the input is only compared with it, never cut again. This file reads no data pages, and must not import torch or
ray.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.column_check import ColumnCheck
from rembert_ray.errors import Fault, UnusableError, printable
from rembert_ray.fingerprint import Fingerprint, difference, show_value
from rembert_ray.footers import FooterSummary, InputNeeds, scan_footers
from rembert_ray.plan_table import FILES_SCHEMA, SHARDS_SCHEMA, Plan, Shard
from rembert_ray.sharding import cut_row_groups
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.listing import FileInfo
from rembert_ray.storage.location import Location, locate, read_bytes
from rembert_ray.storage.put import put_new
from rembert_ray.storage.ranges import FileState

__all__ = [
    "InputNeeds",
    "Plan",
    "Shard",
    "describe",
    "describe_fields",
    "describe_refused",
    "format_bytes",
    "freeze_plan",
    "load_plan",
    "make_plan",
    "resume_plan",
]

PLAN_PATH = ("_rembert_ray", "plan.parquet")
MAX_CHANGES = 20
N_REFUSED_SHOWN = 20


def make_plan(
    files: Sequence[FileInfo],
    root: Location,
    needs: InputNeeds,
    fingerprint: Fingerprint,
    record: Mapping[str, Any] | None = None,
) -> Plan:
    """Cut the files into shards.

    `files` and `root` are what `expand_input` and `input_root` give for `input.path`. Footers are read in parallel,
    and the result depends on their content only. Files that cannot be used are set aside (`Plan.refused`). Raises
    `UnusableError` when no file can be used, with the faults of all at once (at most 20 and a count), also for a
    corpus without any row; `StorageError` when the store does not answer.
    """
    check = ColumnCheck(needs, files)
    cuts: dict[str, array[int]] = {name: array("q") for name in SHARDS_SCHEMA.names if name != "shard"}
    n_rows: list[int | None] = []
    partitions: list[list[tuple[str, str | None]]] = []
    for number, summary in enumerate(scan_footers(files, root, needs)):
        check.add(summary)
        if isinstance(summary, Fault):
            n_rows.append(None)
            partitions.append([])
            continue
        n_rows.append(sum(summary.group_rows))
        partitions.append(_constants(summary, needs))
        limits = {"max_rows": needs.max_rows, "max_bytes": needs.max_bytes}
        for cut in cut_row_groups(summary.group_rows, summary.group_bytes, **limits):
            for name, value in zip(cuts, (number, cut.row_start, cut.n_rows, cut.n_bytes), strict=True):
                cuts[name].append(value)
    refused = check.refused()
    shards = _number_shards(cuts, refused)
    if not shards.num_rows:
        what = f"the input is empty: {len(files):,} file(s) without a row"
        raise UnusableError(check.faults() or Fault(needs.where("input.path"), what, "check input.path"))
    table = _files_table(files, n_rows, partitions, refused)
    return Plan.build(shards, table, check.schema(), fingerprint, dict(record or {}))


def _number_shards(cuts: Mapping[str, array[int]], refused: Mapping[int, str]) -> pa.Table:
    """The cuts of the files that are not refused, numbered; columns of `SHARDS_SCHEMA`."""
    columns = {name: np.frombuffer(values, np.int64) for name, values in cuts.items()}
    used = ~np.isin(columns["file"], list(refused))
    columns = {"shard": np.arange(used.sum())} | {name: values[used] for name, values in columns.items()}
    return pa.table(columns).cast(SHARDS_SCHEMA)


def _files_table(
    files: Sequence[FileInfo],
    n_rows: Sequence[int | None],
    partitions: Sequence[list[tuple[str, str | None]]],
    refused: Mapping[int, str],
) -> pa.Table:
    """Every file of the listing, with columns of `FILES_SCHEMA`; of a refused one, rows and partition say nothing."""
    numbers = range(len(files))
    columns: dict[str, Sequence[Any]] = {
        "url": [str(file.location) for file in files],
        "size_bytes": [file.size_bytes for file in files],
        "version": [file.version for file in files],
        "file_rows": [None if number in refused else n_rows[number] for number in numbers],
        "partition": [[] if number in refused else partitions[number] for number in numbers],
        "refused": [refused.get(number) for number in numbers],
    }
    return pa.table(columns, schema=FILES_SCHEMA)


def load_plan(output: Location) -> Plan | None:
    """The plan stored at an output, None when there is none.

    Raises `UnusableError` when it cannot be read, `StorageError` when the store does not answer.
    """
    location = output.child(*PLAN_PATH)
    try:
        data = read_bytes(location)
    except FileNotFoundError:
        return None
    except storage_errors() as error:
        raise UnusableError(explain(str(location), error)) from error
    return Plan.from_bytes(data, str(location))


def require_plan(output: str) -> Plan:
    """The plan of an output that a person names.

    Raises:
        UnusableError: there is none.
    """
    plan = load_plan(locate(output))
    if plan is None:
        raise UnusableError(Fault(output, "there is no plan", "name the output.path of a job that has been started"))
    return plan


def resume_plan(output: Location, fingerprint: Fingerprint, files: Sequence[FileInfo]) -> Plan | None:
    """The plan stored at an output, checked against today's fingerprint and listing; None when there is none.

    No footer is read. Raises `UnusableError` with every change, stored and new side by side, and like `load_plan`.
    """
    stored = load_plan(output)
    if stored is not None:
        states = {str(file.location): (file.size_bytes, file.version) for file in files}
        _refuse_changes(output, stored, fingerprint, states)
    return stored


def freeze_plan(output: Location, plan: Plan) -> Plan:
    """Store the plan, create-only; the plan that rules from now on.

    That is the stored one when there is one already (from an earlier run, or from another one that was faster):
    its shards count, as long as fingerprint and input files are the same. Raises `UnusableError` when they are
    not, like `resume_plan`; `StorageError` when the store does not answer.
    """
    if load_plan(output) is None and put_new(output.child(*PLAN_PATH), plan.to_bytes()):
        return plan
    stored = load_plan(output)
    if stored is None:
        what = "the plan exists when it is written, but is not there when it is read"
        raise UnusableError(Fault(str(output.child(*PLAN_PATH)), what, "check the permission to read"))
    _refuse_changes(output, stored, plan.fingerprint, plan.file_states())
    return stored


def _refuse_changes(output: Location, stored: Plan, fingerprint: Fingerprint, files: Mapping[str, FileState]) -> None:
    found = [
        Fault(item.key, f"{show_value(item.old)} -> {show_value(item.new)}")
        for item in difference(stored.fingerprint, fingerprint)
    ]
    before = stored.file_states()
    for url in sorted(before.keys() | files.keys()):
        if before.get(url) != files.get(url):
            what = f"{_show_file(before.get(url))} -> {_show_file(files.get(url))}"
            found.append(Fault(f"input file {url}", what))
    if not found:
        return
    what = f"holds results of another plan; {len(found):,} change(s), stored -> now"
    faults = [Fault(str(output), what, "choose a new output.path, or restore what changed"), *found[:MAX_CHANGES]]
    if len(found) > MAX_CHANGES:
        faults.append(Fault(str(output), f"and {len(found) - MAX_CHANGES:,} more changes"))
    raise UnusableError(faults)


def describe(plan: Plan) -> str:
    """A few lines for the terminal."""
    n_rows = plan.shards["n_rows"]
    largest_bytes = pc.max(plan.shards["bytes"]).as_py()
    size_bytes = pc.sum(plan.files["size_bytes"]).as_py()
    median = int(np.median(n_rows.to_numpy()))
    kept = ", ".join(f"{column.name} ({column.type})" for column in plan.schema) or "none"
    return "\n".join(
        [
            f"plan        {plan.plan_id[:12]}: {plan.n_rows:,} rows in {plan.n_shards:,} shards",
            f"input       {plan.files.num_rows:,} files, {format_bytes(size_bytes)}",
            *describe_refused(plan),
            f"shards      {pc.min(n_rows).as_py():,} to {pc.max(n_rows).as_py():,} rows, median {median:,}; "
            f"at most {format_bytes(largest_bytes)} of text and kept columns",
            f"kept        {kept}",
            f"fingerprint {plan.fingerprint.digest}",
        ]
    )


def describe_fields(plan: Plan) -> dict[str, Any]:
    """The same as numbers, for a log."""
    return {
        "plan": plan.plan_id[:12],
        "fingerprint": plan.fingerprint.digest,
        "rows": plan.n_rows,
        "shards": plan.n_shards,
        "files": plan.files.num_rows,
        "refused": len(plan.refused),
    }


def describe_refused(plan: Plan) -> Iterator[str]:
    """Lines about the files that are set aside: how many, and why the first ones; nothing when there are none."""
    refused = plan.refused
    if refused:
        yield f"refused     {len(refused):,} of {plan.files.num_rows:,} files, which are not in the output:"
    for _, url, reason in refused[:N_REFUSED_SHOWN]:
        yield f"            {printable(url)}: {printable(reason)}"
    if len(refused) > N_REFUSED_SHOWN:
        yield f"            and {len(refused) - N_REFUSED_SHOWN:,} more: see `refused` in _rembert_ray/plan.parquet"


def format_bytes(n_bytes: int) -> str:
    """`1536` -> `1.5 KiB`."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{n_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _constants(summary: FooterSummary, needs: InputNeeds) -> list[tuple[str, str | None]]:
    """The kept columns that the file itself does not have, but its path."""
    names = [name for name in needs.keep if name not in summary.fields and name in summary.partition]
    return [(name, summary.partition[name]) for name in names]


def _show_file(state: tuple[int, str] | None) -> str:
    return "(not there)" if state is None else f"{state[0]:,} bytes, version {state[1]}"
