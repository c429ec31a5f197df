"""A stage that fails at the sight of some numbers, in a module of its own so that child processes can import it."""

from __future__ import annotations

import os
import signal
import time

import pyarrow as pa

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.stages.envelope import Envelope, run_stage

KILLS, HANGS, RAISES, REFUSES, LOSES_STORAGE = -1, -2, -3, -4, -5


class Brittle:
    """Doubles numbers; the spec is ignored."""

    def __init__(self, spec) -> None:
        pass

    def __call__(self, sealed: pa.Table) -> pa.Table:
        return run_stage(sealed, self.double)

    def double(self, envelope: Envelope) -> Envelope:
        numbers = envelope.table["number"].to_pylist()
        for row, number in enumerate(numbers):
            if row not in envelope.set_aside:
                fail(number)
        envelope.table = pa.table(
            {
                "number": [None if row in envelope.set_aside else 2 * n for row, n in enumerate(numbers)],
                "error": pa.array([envelope.set_aside.get(row) for row in range(len(numbers))], pa.string()),
            }
        )
        envelope.facts["made_by"] = os.getpid()
        return envelope


def fail(number: int) -> None:
    if number == KILLS:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == HANGS:
        time.sleep(600)
    if number == RAISES:
        raise ZeroDivisionError("nobody thought of it")
    if number == REFUSES:
        raise ShardError("these rows cannot be had")
    if number == LOSES_STORAGE:
        raise StorageError("the store is away")
