"""`run.json`: what a run left behind, in numbers, for programs, for the page and for the drift check of the next night.

The schema has a version: within one, keys are only added. Nothing in it is text of a row.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.report.drift import Drift
from rembert_ray.report.profile import Profile
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import put_replacing
from rembert_ray.storage.seal import sealed_json

RUN_RECORD = "run.json"
SCHEMA_VERSION = 1


class Outcome(BaseModel):
    """How it ended. `state`: done, incomplete, stopped, or running; `exit_code` is None while it runs."""

    state: str
    exit_code: int | None
    sentence: str


class Counts(BaseModel):
    """Of the whole output, earlier runs included; those of tokens are estimates where not all parts were looked at."""

    shards_planned: int
    shards_committed: int
    rows_planned: int
    rows_committed: int
    rows_with_error: int
    tokens: int
    tokens_computed: int
    windows: int
    parts_looked_at: int
    parts_unreadable: int
    is_estimate: bool


class Interval(BaseModel):
    """A stretch of the last run: seconds since it began, and what its parts made of it per second."""

    start_s: float
    end_s: float
    rows_per_s: float
    tokens_per_s: float


class SlowShard(BaseModel):
    """One of the shards that took longest, in worker seconds."""

    shard: int
    source: str
    row_start: int
    n_rows: int
    tokens: int
    seconds: float
    worker: str


class Speed(BaseModel):
    """Of the last run: its time from the first part's read to the last one's end, and who was busy for how long.

    stages: worker seconds of each phase. busy: share of the infer actors' time in which they inferred.
    """

    run: str
    seconds: float
    rows_per_s: float
    tokens_per_s: float
    stages: dict[str, float]
    n_actors: int
    busy: float
    intervals: list[Interval]
    slowest: list[SlowShard]


class Padding(BaseModel):
    """What batches of 32 rows in order of arrival would have padded: tokens for each token of text, 1 is none."""

    tokens_per_token: float
    n_rows: int


class Failure(BaseModel):
    """A shard or a file that is not in the output, and why."""

    name: str
    source: str
    reason: str


class RunRecord(BaseModel):
    """The whole record."""

    schema_version: Literal[1] = 1
    made: str
    output: str
    task: str
    outcome: Outcome
    counts: Counts
    speed: Speed | None
    padding: Padding | None
    sample_rows: int
    sample_parts: int
    profile: Profile
    errors: dict[str, int]
    failures: list[Failure]
    n_failures: int
    drift: Drift | None
    warnings: list[str]
    plan: str
    fingerprint: str
    fingerprint_fields: dict[str, Any]
    manifest: dict[str, Any]
    versions: dict[str, str]


def record_place(output: Location) -> Location:
    """Where the record of an output is."""
    return output.child(CONTROL_FOLDER, RUN_RECORD)


def write_record(output: Location, record: RunRecord) -> None:
    """Store it beside the output, in place of the last one. Raises `StorageError`."""
    put_replacing(record_place(output), sealed_json(record.model_dump(mode="json")))


def read_record(output: Location, where: str) -> RunRecord | None:
    """The record of an output, None when it has none.

    Raises:
        UnusableError: it is damaged or of another version; `where` is the place for the message.
    """
    place = record_place(output)
    try:
        data = read_bytes(place)
    except FileNotFoundError:
        return None
    except storage_errors() as error:
        raise UnusableError(explain(str(place), error)) from error
    fix = f"make it again with `rembert-ray report {output}`"
    try:
        values = json.loads(data)
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            what = f"{place} has version {version}, this one reads {SCHEMA_VERSION}"
            raise UnusableError(Fault(where, what, fix))
        return RunRecord.model_validate(values)
    except (ValueError, ValidationError) as error:
        raise UnusableError(Fault(where, f"{place} cannot be read: {type(error).__name__}", fix)) from error
