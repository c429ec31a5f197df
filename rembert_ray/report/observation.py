"""An output as it can be seen without Ray, torch and the model: what its parts say of themselves, and a sample of rows.

What is looked at is bounded however large the output is, and the same at every look: parts spread evenly over the plan,
and in each a run of rows at a place that its number decides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import ShardError
from rembert_ray.plan import Plan
from rembert_ray.report.tally import PHASES
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import footer_values, read_footer, read_rows

MOST_FOOTERS = 2_000
MOST_SAMPLED_PARTS = 128
MOST_SAMPLED_ROWS = 20_000
MOST_SAMPLED_BYTES = 256 * 1024**2
N_THREADS = 16


@dataclass(frozen=True)
class PartFacts:
    """What the footer of a part says. `seconds`: of each phase but the commit, which comes after the footer.

    began, infer_began, ended: seconds since 1970 (UTC) at which its first phase and its inference began, and the last
    phase ended.
    `run`: the run that made it. `worker`: `host/pid` of the infer actor.
    """

    shard: int
    run: str
    source: str
    row_start: int
    n_rows: int
    n_errors: int
    n_tokens: int
    n_tokens_computed: int
    n_windows: int
    n_batches: int
    seconds: Mapping[str, float]
    began: float
    infer_began: float
    ended: float
    worker: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Observation:
    """An output at one moment.

    there: the committed shards. parts: facts of those that were looked at. rows: the sample, in the output's schema.
    n_sampled_parts: parts that the sample is of. n_unreadable: parts that are damaged (`rembert-ray verify` says how).
    """

    plan: Plan
    there: npt.NDArray[np.int64]
    parts: Sequence[PartFacts]
    rows: pa.Table
    n_sampled_parts: int
    n_unreadable: int

    @property
    def last_run(self) -> list[PartFacts]:
        """The parts of the run that committed last, in the order of their end."""
        if not self.parts:
            return []
        last = max(self.parts, key=lambda part: part.ended).run
        return sorted((part for part in self.parts if part.run == last), key=lambda part: part.ended)


def observe(output: Location, plan: Plan) -> Observation:
    """Look at an output. Raises `StorageError` when the store does not answer; damaged parts are counted."""
    there = list_parts(output, plan.fingerprint.digest)
    chosen, sampled = _spread(there, MOST_FOOTERS), _spread(there, MOST_SAMPLED_PARTS)
    digest = plan.fingerprint.digest
    with ThreadPoolExecutor(N_THREADS) as pool:
        facts = list(pool.map(lambda shard: _facts(output, digest, shard), chosen.tolist()))
        tables = list(pool.map(lambda shard: _rows(output, digest, shard, len(sampled)), sampled.tolist()))
    read = [table for table in tables if table is not None]
    return Observation(
        plan=plan,
        there=there,
        parts=[fact for fact in facts if fact is not None],
        rows=pa.concat_tables(read) if read else pa.table({}),
        n_sampled_parts=len(read),
        n_unreadable=sum(fact is None for fact in facts),
    )


def _spread(there: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return there[np.unique(np.linspace(0, len(there) - 1, min(len(there), most)).astype(np.int64))]


def _facts(output: Location, digest: str, shard: int) -> PartFacts | None:
    try:
        return facts_of(footer_values(read_footer(output.child(part_name(shard, digest)))))
    except (ShardError, ValueError, KeyError):
        return None


def facts_of(values: Mapping[str, str]) -> PartFacts:
    """Facts from footer values (see `storage.commit`). KeyError, ValueError when they are not there."""
    seconds = {phase: float(values.get(f"{phase}_s", 0)) for phase in PHASES}
    starts = {
        phase: datetime.fromisoformat(values[f"{phase}_at"]).timestamp() for phase in PHASES if f"{phase}_at" in values
    }
    return PartFacts(
        shard=int(values["shard"]),
        run=values["attempt"].rpartition("-")[0],
        source=values["source"],
        row_start=int(values["row_start"]),
        n_rows=int(values["n_rows"]),
        n_errors=int(values.get("n_errors", 0)),
        n_tokens=int(values.get("n_tokens", 0)),
        n_tokens_computed=int(values.get("n_tokens_computed", 0)),
        n_windows=int(values.get("n_windows", 0)),
        n_batches=int(values.get("n_batches", 0)),
        seconds=seconds,
        began=min(starts.values(), default=0.0),
        infer_began=starts.get("infer", 0.0),
        ended=max((start + seconds[phase] for phase, start in starts.items()), default=0.0),
        worker=values.get("inferred_at", ""),
        versions={name.removeprefix("version_"): value for name, value in values.items() if name.startswith("version")},
    )


def _rows(output: Location, digest: str, shard: int, n_parts: int) -> pa.Table | None:
    """This part's share of the sample: rows in a row, from a place that the shard's number decides."""
    part = output.child(part_name(shard, digest))
    try:
        footer = read_footer(part)
        n_rows = min(footer.num_rows, math.ceil(MOST_SAMPLED_ROWS / n_parts), _affordable(footer, n_parts))
        start = random.Random(shard).randint(0, footer.num_rows - n_rows)
        return read_rows(part, start, n_rows)
    except (ShardError, ValueError):
        return None


def _affordable(footer: pq.FileMetaData, n_parts: int) -> int:
    n_bytes = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    return max(1, int(MOST_SAMPLED_BYTES / n_parts / max(n_bytes / max(footer.num_rows, 1), 1)))
