"""How a shard travels between stages: one row with its table inside, so that nothing can split or reorder it.

Ray may cut blocks that grow and join blocks that are small; a row it cannot cut. A shard that failed travels the same
way with a reason instead of a table, and the stages after it pass it on.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rembert_ray.errors import RembertRayError, ShardError
from rembert_ray.plan import Shard

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("facts", pa.string(), nullable=False),
        pa.field("failure", pa.string()),
        pa.field("is_suspect", pa.bool_(), nullable=False),
        pa.field("set_aside", pa.string(), nullable=False),
        pa.field("table", pa.large_binary()),
    ]
)


@dataclass
class Envelope:
    """A shard on its way.

    facts: counts, seconds and times (UTC, ISO 8601), by name; what the receipt and the footer will say.
    failure: why the shard cannot be made, else None.
    is_suspect: the failure may be the fault of one row, which has to be looked for (see `probation`).
    table: its rows; None once it failed, and after it was written.
    set_aside: rows that must not be worked on, and why: the reason becomes their error.
    """

    shard: Shard
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    table: pa.Table | None = None
    set_aside: dict[int, str] = field(default_factory=dict)
    is_suspect: bool = False

    def fail(self, reason: str, *, is_suspect: bool = False) -> None:
        """From now on it only carries why."""
        self.failure, self.is_suspect, self.table = reason, is_suspect, None

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a phase to the facts, and when it began: between two shards a worker waits."""
        self.facts[f"{phase}_at"] = datetime.now(UTC).isoformat()
        started = time.perf_counter()
        try:
            yield
        finally:
            name = f"{phase}_s"
            self.facts[name] = round(self.facts.get(name, 0.0) + time.perf_counter() - started, 6)


def this_process() -> str:
    """Where a stage ran, for the footer: `host/pid`."""
    return f"{socket.gethostname()}/{os.getpid()}"


def seal(envelopes: list[Envelope]) -> pa.Table:
    """Envelopes as an Arrow table, a row each."""
    columns = [
        pa.array([json.dumps(asdict(envelope.shard)) for envelope in envelopes], pa.string()),
        pa.array([json.dumps(envelope.facts) for envelope in envelopes], pa.string()),
        pa.array([envelope.failure for envelope in envelopes], pa.string()),
        pa.array([envelope.is_suspect for envelope in envelopes], pa.bool_()),
        pa.array([json.dumps(envelope.set_aside) for envelope in envelopes], pa.string()),
        pa.chunked_array([_to_bytes(envelope.table) for envelope in envelopes], pa.large_binary()),
    ]
    return pa.table(columns, schema=SCHEMA)


def unseal(sealed: pa.Table) -> list[Envelope]:
    """The envelopes of a block; their tables are views of the block's memory."""
    payload = sealed.column("table").cast(pa.large_binary())
    return [
        Envelope(
            shard=Shard(**json.loads(sealed.column("shard")[row].as_py())),
            facts=json.loads(sealed.column("facts")[row].as_py()),
            failure=sealed.column("failure")[row].as_py(),
            is_suspect=sealed.column("is_suspect")[row].as_py(),
            table=_from_bytes(payload[row]) if payload[row].is_valid else None,
            set_aside={int(key): why for key, why in json.loads(sealed.column("set_aside")[row].as_py()).items()},
        )
        for row in range(sealed.num_rows)
    ]


def run_stage(sealed: pa.Table, work: Callable[[Envelope], Envelope]) -> pa.Table:
    """Apply `work` to every envelope that has not failed.

    What goes wrong with a shard becomes its failure. What nobody thought of makes it a suspect: some row of it may do
    that, and must not cost the others. Errors that concern the whole job (`StorageError` and the like) are raised.
    """
    done = []
    for envelope in unseal(sealed):
        if envelope.failure is None:
            try:
                envelope = work(envelope)
            except ShardError as error:
                envelope.fail(str(error))
            except RembertRayError:
                raise
            except Exception as error:
                log.exception("shard %s failed", envelope.shard)
                reason = "".join(traceback.format_exception_only(error)).strip()
                envelope.fail(f"unexpected: {reason}", is_suspect=True)
        done.append(envelope)
    return seal(done)


def _to_bytes(table: pa.Table | None) -> pa.Array:
    """A table as one binary value, or one null, without a copy of what was serialized."""
    if table is None:
        return pa.nulls(1, pa.large_binary())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    bounds = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, bounds, data])


def _from_bytes(payload: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(payload.as_buffer()).read_all()
