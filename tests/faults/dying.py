"""A process that commits one shard and is stopped or killed at a chosen step; run by the tests beside it.

    python -m tests.faults.dying OUTPUT ATTEMPT [STEP] [SIGNAL]     an ATTEMPT `plan:CORPUS` freezes a plan instead

Prints the outcome when it gets that far. Not a test itself.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from rembert_ray.plan import freeze_plan
from rembert_ray.storage import commit, filesystem, put, s3
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.storage.location import Location, locate
from tests.test_plan import plan_of

REPOSITORY = Path(__file__).parents[2]
TABLE = pa.table({"id": list(range(2000)), "text": [f"row {number} " * (number % 7) for number in range(2000)]})

# Where an attempt can end: a function that it calls, and whether before or after the call.
STEPS: dict[str, tuple[Any, str, str]] = {
    "before encoding": (commit, "encode_parquet", "before"),
    "after encoding": (commit, "encode_parquet", "after"),
    "temporary file written, not synced": (os, "fsync", "before"),
    "temporary file complete": (put, "_name_new", "before"),
    "name given, temporary file still there": (put, "_name_new", "after"),
    "name given, folder not synced": (put, "_sync_folder", "before"),
    "before the put": (s3, "put", "before"),
    "reply lost": (filesystem.time, "sleep", "before"),
    "after the put": (s3, "put", "after"),
    "before the read-back": (commit, "read_footer_values", "before"),
}
HALF_WRITTEN = "temporary file half written"
BEFORE_RECEIPT = "before the receipt"


def part_of(attempt: str) -> Part:
    """The one shard that everybody here works at."""
    return Part(7, "0123abcd", "plan-1", "s3://in/a.parquet", 0, TABLE.num_rows, attempt)


def start(output: Location, attempt: str, step: str = "", number: signal.Signals = signal.SIGKILL) -> Any:
    """The process; its standard output is the outcome."""
    command = [sys.executable, "-m", "tests.faults.dying", str(output), attempt, step, str(int(number))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Until SIGSTOP has been delivered."""
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, "it ended instead"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _interrupt_at(step: str, number: int) -> None:
    if step == HALF_WRITTEN:
        # The kernel itself ends the process in the middle of a write; Python ignores this signal by default.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    elif step and step != BEFORE_RECEIPT:
        place, name, when = STEPS[step]
        setattr(place, name, _interrupted(getattr(place, name), when, number))


def _interrupted(call: Callable[..., Any], when: str, number: int) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), number)
        result = call(*args, **kwargs)
        if when == "after":
            os.kill(os.getpid(), number)
        return result

    return wrapper


def main() -> None:
    """See the module."""
    output, attempt, step, number = [*sys.argv[1:], "", "9"][:4]
    if attempt.startswith("plan:"):
        plan = plan_of(attempt.removeprefix("plan:"))
        _interrupt_at(step, int(number))
        print(freeze_plan(locate(output), plan).plan_id)
        return
    _interrupt_at(step, int(number))
    done = commit_part(locate(output), part_of(attempt), TABLE, {})
    if step == BEFORE_RECEIPT:
        os.kill(os.getpid(), int(number))
    print(done.outcome, done.attempt, done.differs)


if __name__ == "__main__":
    main()
