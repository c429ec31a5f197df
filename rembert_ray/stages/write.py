"""Decode a shard's values into columns and commit its object. Runs on CPU workers; needs neither torch nor ray.

The receipt that comes out is small: the driver sees nothing else of a shard.
"""

from __future__ import annotations

import secrets
from importlib.metadata import version

import numpy as np
import pyarrow as pa

import rembert_ray
from rembert_ray.errors import ShardError
from rembert_ray.stages import payload
from rembert_ray.stages.envelope import Envelope, run_stage
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.tasks.base import Decodable


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
            commit = commit_part(self.spec.output, part, rows, footer)
        envelope.facts |= {
            "object": commit.location.name,
            "n_bytes": commit.n_bytes,
            "outcome": commit.outcome,
            "differs": commit.differs,
        }
        envelope.table = None
        return envelope


VERSIONS = {
    "version": rembert_ray.__version__,
    **{f"version_{name}": version(name) for name in ("pyarrow", "numpy", "sentencepiece", "torch", "ray")},
}


def decode(table: pa.Table, spec: JobSpec) -> pa.Table:
    """Rows with values as rows of the output, in its schema.

    Raises:
        ShardError: what the task returned does not fit its schema.
    """
    is_good = np.asarray(table.column(payload.ERROR).is_null())
    good = table if is_good.all() else table.filter(pa.array(is_good))
    kept_tokens = payload.flat(good, payload.KEPT_ENDS) - payload.flat(good, payload.KEPT_STARTS)
    rows = Decodable(
        texts=good.column(payload.TEXT).to_pylist(),
        n_tokens=np.asarray(good.column(payload.N_TOKENS)).astype(np.int64),
        offsets=payload.flat(good, payload.OFFSETS) if spec.task.has_offsets else None,
        is_unknown=payload.flat(good, payload.IS_UNKNOWN) if spec.task.has_offsets else None,
        n_windows=payload.windows_of_rows(good),
        n_kept=kept_tokens.astype(np.int64),
        values=payload.values_of(good),
    )
    columns: dict[str, pa.Array | pa.ChunkedArray] = {name: table.column(name) for name in spec.kept.names}
    if good.num_rows:
        for name, column in spec.task.decode(rows, spec.config).items():
            columns[name] = column if is_good.all() else payload.scatter(column, is_good)
    else:
        columns |= {field.name: pa.nulls(table.num_rows, field.type) for field in spec.task.schema(spec.config)}
    n_windows = np.where(is_good, payload.windows_of_rows(table), 0).astype(np.int32)
    columns |= {
        "n_tokens": table.column(payload.N_TOKENS),
        "n_windows": pa.array(n_windows),
        "truncated": pa.repeat(pa.scalar(False), table.num_rows),
        "error": table.column(payload.ERROR),
    }
    try:
        return pa.table(columns).select(spec.schema.names).cast(spec.schema)
    except (pa.ArrowException, KeyError) as error:
        raise ShardError(f"the columns of task {spec.task.name} do not fit its schema: {error}") from error
