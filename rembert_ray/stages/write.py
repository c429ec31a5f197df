"""Decode a shard's values into columns and commit its object. Runs on CPU workers; needs neither torch nor ray.

The receipt that comes out is small: the driver sees nothing else of a shard.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import rembert_ray
from rembert_ray.engine.documents import Decodable
from rembert_ray.errors import ShardError
from rembert_ray.stages import payload
from rembert_ray.stages.envelope import Envelope, run_stage
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.commit import Part, commit_part

_NUMBER = re.compile(r"\d[\d,.]*")
LONGEST_KIND = 60
MOST_KINDS = 10


class Write:
    """The stage as a callable: rows with values in, a committed object and a receipt out."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        return run_stage(sealed, self.write)

    def write(self, envelope: Envelope) -> Envelope:
        """Decode and commit one shard."""
        assert envelope.table is not None
        with envelope.timed("decode"):
            rows = decode(envelope.table, self.spec)
        shard = envelope.shard
        part = Part(
            shard=shard.index,
            fingerprint=self.spec.fingerprint,
            plan_id=self.spec.plan_id,
            source=shard.url,
            row_start=shard.row_start,
            n_rows=shard.n_rows,
            attempt=f"{self.spec.run_id}-{secrets.token_hex(4)}",
        )
        n_errors = rows.num_rows - rows.column("error").null_count
        envelope.facts |= {"n_rows": rows.num_rows, "n_errors": n_errors}
        footer = {name: str(value) for name, value in (self.spec.footer | VERSIONS | envelope.facts).items()}
        with envelope.timed("commit"):
            commit = commit_part(self.spec.output, part, rows, footer, budget_s=self.spec.storage_s)
        envelope.facts |= {
            "error_kinds": count_kinds(rows.column("error")),
            "object": commit.location.name,
            "n_bytes": commit.n_bytes,
            "outcome": commit.outcome,
            "differs": commit.differs,
        }
        envelope.table = None
        return envelope


def count_kinds(errors: pa.ChunkedArray) -> dict[str, int]:
    """How many rows have which error, numbers in the messages left out: a few kinds, whatever the rows hold."""
    counted: Counter[str] = Counter()
    for entry in pc.value_counts(errors.drop_null()).to_pylist():
        counted[_NUMBER.sub("N", entry["values"])[:LONGEST_KIND]] += entry["counts"]
    kinds = dict(counted.most_common(MOST_KINDS))
    others = counted.total() - sum(kinds.values())
    return kinds | ({"(others)": others} if others else {})


VERSIONS = {
    "version": rembert_ray.__version__,
    **{f"version_{name}": version(name) for name in ("pyarrow", "numpy", "sentencepiece", "torch", "ray")},
}


def _decodable(good: pa.Table, has_offsets: bool) -> Decodable:
    def columns(prefix: str) -> dict[str, pa.ChunkedArray]:
        return {name: good.column(full) for name, full in payload.prefixed(good, prefix).items()}

    return Decodable(
        inputs={name: column.to_pylist() for name, column in columns(payload.INPUT).items()},
        n_tokens=np.asarray(good.column(payload.N_TOKENS)).astype(np.int64),
        truncated=good.column(payload.TRUNCATED).to_numpy(),
        n_windows=payload.windows_of_rows(good),
        n_kept=payload.flat(good, payload.KEPT_LENGTHS).astype(np.int64),
        values={name: payload.flat(good, full) for name, full in payload.prefixed(good, payload.VALUE).items()},
        offsets=payload.flat(good, payload.OFFSETS) if has_offsets else None,
        is_unknown=payload.flat(good, payload.IS_UNKNOWN) if has_offsets else None,
        extras={name: column.combine_chunks() for name, column in columns(payload.EXTRA).items()},
    )


def decode(table: pa.Table, spec: JobSpec) -> pa.Table:
    """Rows with values as rows of the output, in its schema.

    Raises:
        ShardError: what the task returned does not fit its schema.
    """
    is_good = np.asarray(table.column(payload.ERROR).is_null())
    good = table if is_good.all() else table.filter(pa.array(is_good))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        spec.renamed.get(name, name): table.column(name) for name in spec.kept.names
    }
    if good.num_rows:
        for name, column in spec.task.decode(_decodable(good, spec.task.has_offsets), spec.config).items():
            columns[name] = column if is_good.all() else payload.scatter(column, is_good)
    else:
        columns |= {field.name: pa.nulls(table.num_rows, field.type) for field in spec.task.schema(spec.config)}
    n_windows = np.where(is_good, payload.windows_of_rows(table), 0).astype(np.int32)
    columns |= {
        "n_tokens": table.column(payload.N_TOKENS),
        "n_windows": pa.array(n_windows),
        "truncated": table.column(payload.TRUNCATED),
        "error": table.column(payload.ERROR),
    }
    try:
        return pa.table(columns).select(spec.schema.names).cast(spec.schema)
    except (pa.ArrowException, KeyError) as error:
        raise ShardError(f"the columns of task {spec.task.name} do not fit its schema: {error}") from error
