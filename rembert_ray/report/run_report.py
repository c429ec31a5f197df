"""Makes the record of an output, from the output alone: at the end of a run, and by `rembert-ray report`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rembert_ray.errors import printable
from rembert_ray.plan import Plan
from rembert_ray.report import status
from rembert_ray.report.drift import FAIL, WARN, compare_profiles
from rembert_ray.report.observation import Observation, observe
from rembert_ray.report.profile import Profile, make_profile
from rembert_ray.report.run_record import (
    Counts,
    Failure,
    Outcome,
    RunRecord,
    read_record,
)
from rembert_ray.report.scripts import scripts_of_input
from rembert_ray.report.throughput import padding_of, speed_of
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, locate, read_bytes
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.tasks.base import Task

N_ERRORS = 20
N_FAILURES = 50
LONGEST_ERROR = 200
MOST_DISTINCT = 100


@dataclass(frozen=True)
class Against:
    """What a run is compared with: an earlier output's profile, and the indices for a warning and for a failure."""

    output: str
    profile: Profile
    warn: float = WARN
    fail: float = FAIL

    @classmethod
    def read(cls, output: str, warn: float = WARN, fail: float = FAIL, where: str = "--against") -> Against | None:
        """The profile of the last run on an output, None when it has none; raises like `read_record`."""
        earlier = read_record(locate(output), where)
        return None if earlier is None else cls(output, earlier.profile, warn, fail)


def record_of(
    output: Location,
    plan: Plan,
    task: Task,
    seen: Observation,
    *,
    against: Against | None,
    warnings: Sequence[str] = (),
) -> RunRecord:
    """Everything but the outcome, which depends on the drift: see `close_record`.

    Raises:
        StorageError: the store does not answer.
    """
    good = seen.rows.filter(pc.is_null(seen.rows["error"])) if seen.rows.num_rows else seen.rows
    profile = _profile(seen, good, task)
    failures = list(_failures(output, plan))
    return RunRecord(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        output=str(output),
        task=plan.record["manifest"]["task"],
        outcome=Outcome(state="running", exit_code=None, sentence=""),
        counts=_counts(seen),
        speed=speed_of(seen.last_run, len(seen.there) / max(len(seen.parts), 1)),
        padding=padding_of(good),
        sample_rows=seen.rows.num_rows,
        sample_parts=seen.n_sampled_parts,
        profile=profile,
        errors=_errors(seen.rows),
        failures=failures[:N_FAILURES],
        n_failures=len(failures),
        drift=None
        if against is None
        else compare_profiles(against.profile, profile, against.output, against.warn, against.fail),
        warnings=list(warnings),
        plan=plan.plan_id,
        fingerprint=plan.fingerprint.digest,
        fingerprint_fields=dict(plan.fingerprint.fields),
        manifest=plan.record["manifest"],
        versions=dict(seen.last_run[-1].versions) if seen.last_run else {},
    )


def close_record(record: RunRecord, state: str, exit_code: int | None) -> RunRecord:
    """The record with its outcome, in a sentence that a person reads first."""
    outcome = Outcome(state=state, exit_code=exit_code, sentence=_sentence(record, state))
    return record.model_copy(update={"outcome": outcome})


def record_now(output: Location, plan: Plan, task: Task, against: Against | None) -> tuple[RunRecord, Observation]:
    """The record of an output as it is, whoever works on it; raises like `record_of`."""
    seen = observe(output, plan)
    last = status.read(output) or {}
    state = "done" if status.is_success(output) else str(last.get("state", "not started"))
    record = record_of(output, plan, task, seen, against=against)
    return close_record(record, state, 0 if state == "done" else last.get("exit_code")), seen


def _sentence(record: RunRecord, state: str) -> str:
    counts = record.counts
    share = counts.rows_committed / max(counts.rows_planned, 1)
    done = counts.shards_committed == counts.shards_planned
    rows = f"{counts.rows_committed:,} of {counts.rows_planned:,} rows ({share:.1%})"
    text = f"All {counts.rows_planned:,} rows are there" if done else f"{rows} are there"
    text += f", {counts.rows_with_error:,} of them with an error" if counts.rows_with_error else ", none with an error"
    if record.n_failures:
        text += f"; {record.n_failures:,} shards or files are quarantined"
    if record.drift and record.drift.level != "none":
        text += f"; {record.drift.sentence}"
    if state not in ("done", "incomplete"):
        text += f" (the run is {state})"
    return text + "."


def _counts(seen: Observation) -> Counts:
    parts, plan = seen.parts, seen.plan
    factor = len(seen.there) / max(len(parts), 1)
    totals = {name: round(factor * sum(getattr(part, name) for part in parts)) for name in _SUMMED}
    return Counts(
        shards_planned=plan.n_shards,
        shards_committed=len(seen.there),
        rows_planned=plan.n_rows,
        rows_committed=int(pc.sum(plan.shards["n_rows"].take(pa.array(seen.there))).as_py() or 0),
        rows_with_error=totals["n_errors"],
        tokens=totals["n_tokens"],
        tokens_computed=totals["n_tokens_computed"],
        windows=totals["n_windows"],
        parts_looked_at=len(parts),
        parts_unreadable=seen.n_unreadable,
        is_estimate=len(parts) < len(seen.there),
    )


_SUMMED = ("n_errors", "n_tokens", "n_tokens_computed", "n_windows")


def _profile(seen: Observation, good: pa.Table, task: Task) -> Profile:
    """The task's features, those of every task, the scripts of the input, and kept columns of few different values."""
    rows, manifest = seen.rows, seen.plan.record["manifest"]
    if not rows.num_rows:
        return {}
    features: dict[str, pa.Array] = task.features(good) if good.num_rows else {}
    features |= {name: good[name].combine_chunks() for name in ("n_tokens", "n_windows", "truncated")}
    features["error"] = pc.is_valid(rows["error"]).combine_chunks()
    named: Mapping[str, str] = manifest["input"].get("columns", {})
    scripts = scripts_of_input(seen.plan, {name: named.get(name, name) for name in task.form}, seen.there.tolist())
    if len(scripts):
        features["script"] = scripts
    renamed: Mapping[str, str] = manifest["input"].get("rename", {})
    for name in (renamed.get(field.name, field.name) for field in seen.plan.schema):
        column = rows[name].combine_chunks()
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if is_text and pc.count_distinct(column).as_py() <= MOST_DISTINCT:
            features[f"kept {name}"] = column
    return make_profile(features)


def _errors(rows: pa.Table) -> dict[str, int]:
    """Messages of the sampled rows with how many have each, the most frequent first; they hold no text of rows."""
    if not rows.num_rows:
        return {}
    counted = pc.value_counts(rows["error"].drop_null()).to_pylist()
    most = sorted(counted, key=lambda entry: (-entry["counts"], entry["values"]))[:N_ERRORS]
    return {printable(entry["values"])[:LONGEST_ERROR]: entry["counts"] for entry in most}


def _failures(output: Location, plan: Plan) -> list[Failure]:
    folder = output.child(CONTROL_FOLDER, status.QUARANTINE)
    found = []
    for name in sorted(list_names(folder, "shard-")):
        try:
            values: dict[str, Any] = json.loads(read_bytes(folder.child(name)))
            found.append(Failure(name=name.removesuffix(".json"), source=values["source"], reason=values["reason"]))
        except (FileNotFoundError, ValueError, KeyError):
            continue
    return found + [Failure(name=f"file-{number:08d}", source=url, reason=why) for number, url, why in plan.refused]
