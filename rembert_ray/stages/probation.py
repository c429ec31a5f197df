"""Run a stage in a child process, so that a row that kills the process costs that row and nothing else.

Used by an actor that Ray started anew after its process had died: the shards that were in it come first, and one of
them may hold the row that did it. A child that dies is tried again on half of the rows, down to the row to blame,
which becomes an `error` value. Slow (every child loads the tokenizer or the model), rare, and bounded.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from rembert_ray.errors import ShardError
from rembert_ray.stages.envelope import Envelope, seal, unseal
from rembert_ray.stages.spec import JobSpec

MAX_CHILDREN = 128
CHILD_TIMEOUT_S = 900.0
OUTSIDE = "not tried by this child process"


class Stage(Protocol):
    """A stage class: made from a spec, it turns envelopes into envelopes."""

    def __init__(self, spec: JobSpec) -> None: ...

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `envelope.run_stage`."""
        ...


@dataclass
class Probation:
    """One shard on probation in one stage; `run` is what a stage's own method does for a shard that is harmless."""

    stage: type[Stage]
    spec: JobSpec
    n_children: int = 0

    def run(self, envelope: Envelope) -> Envelope:
        """The stage's result, with an error in each row that ended its process alone.

        Raises:
            ShardError: the stage refused the shard, or more rows kill than can be looked for.
        """
        n_rows = envelope.shard.n_rows
        tables = self._run_rows(envelope, 0, n_rows)
        # Where a child had nothing to run there are no values of the model: those rows have nulls for them.
        return replace(envelope, table=pa.concat_tables(tables, promote_options="default").combine_chunks())

    def _run_rows(self, envelope: Envelope, first: int, end: int) -> list[pa.Table]:
        done, died_of = self._run_child(envelope, first, end, OUTSIDE)
        if done is not None:
            return [_rows(done, envelope, first, end)]
        if end - first == 1:
            reason = f"this row ended its process in {self.stage.__name__.lower()} ({died_of})"
            done, died_of = self._run_child(envelope, first, first, reason)
            if done is None:
                raise ShardError(f"the process ends also without any row ({died_of})")
            return [_rows(done, envelope, first, end)]
        middle = (first + end) // 2
        return [*self._run_rows(envelope, first, middle), *self._run_rows(envelope, middle, end)]

    def _run_child(self, envelope: Envelope, first: int, end: int, reason: str) -> tuple[Envelope | None, str]:
        """The result of the rows `first` to `end`, all others set aside; or None and what the child died of."""
        self.n_children += 1
        if self.n_children > MAX_CHILDREN:
            raise ShardError(f"its rows ended {MAX_CHILDREN} processes; the search for them is given up")
        outside = {row: reason for row in range(envelope.shard.n_rows) if not first <= row < end}
        sealed = seal([replace(envelope, set_aside=envelope.set_aside | outside)])
        with tempfile.TemporaryDirectory(prefix="rembert-ray-") as folder:
            task, answer = Path(folder) / "task", Path(folder) / "answer"
            task.write_bytes(pickle.dumps((self.stage, self.spec, sealed)))
            command = [sys.executable, "-m", "rembert_ray.stages.probation", str(task), str(answer)]
            try:
                child = subprocess.run(command, timeout=CHILD_TIMEOUT_S, check=False, capture_output=True)
            except subprocess.TimeoutExpired:
                return None, f"no end after {CHILD_TIMEOUT_S:g} s"
            if child.returncode != 0:
                return None, _cause(child.returncode)
            (done,) = unseal(pickle.loads(answer.read_bytes()))
        if done.failure is not None:
            raise ShardError(done.failure)
        return done, ""


def _rows(done: Envelope, envelope: Envelope, first: int, end: int) -> pa.Table:
    assert done.table is not None
    for name, value in done.facts.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            envelope.facts[name] = envelope.facts.get(name, 0) + value
    return done.table.slice(first, end - first)


def _cause(return_code: int) -> str:
    if return_code < 0:
        return signal.Signals(-return_code).name
    return f"exit code {return_code}"


def main(arguments: list[str]) -> None:
    """The child: read a task, run it, write the answer."""
    task, answer = map(Path, arguments)
    stage, spec, sealed = pickle.loads(task.read_bytes())
    run: Any = stage(spec)
    answer.write_bytes(pickle.dumps(run(sealed)))


if __name__ == "__main__":
    main(sys.argv[1:])
