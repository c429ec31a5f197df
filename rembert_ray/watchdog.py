"""What a worker process is at work on, and an end to it when it is silent for too long.

Both outlive the process: the worker that Ray starts in its place on the same machine learns which shard the dead one
had in hand. The timer is faulthandler's, which needs no interpreter: an endless regular expression or a native call
that never returns does not stop it, and on its way out it writes the stacks of all threads to a file.

A process has one watchdog. This file knows neither Ray nor storage.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FORGOTTEN_AFTER_S = 7 * 24 * 3600.0
WRITING_TAKES_S = 0.5
MAX_STACK_CHARACTERS = 6000
BEAT_INTERVAL_S = 1.0

_rearm: Callable[[], None] | None = None
_armed_at = 0.0


def beat() -> None:
    """The work goes on: the silence that is allowed begins anew. Costs next to nothing, for loops of short steps."""
    if _rearm is not None and time.monotonic() - _armed_at > BEAT_INTERVAL_S:
        _rearm()


@contextmanager
def silence_ends_process(silence_s: float, stacks: IO[Any] | None = None) -> Iterator[None]:
    """End the process (exit code 1) after so many seconds without a `beat`, its stacks in a file, or on stderr."""
    global _rearm

    def arm() -> None:
        global _armed_at
        _armed_at = time.monotonic()
        faulthandler.dump_traceback_later(silence_s, exit=True, file=stacks or sys.stderr)

    _rearm = arm
    arm()
    try:
        yield
    finally:
        _rearm = None
        faulthandler.cancel_dump_traceback_later()


@dataclass(frozen=True)
class LastWords:
    """What a worker that died had in hand, and its stacks if it was ended because it was silent (else "")."""

    shard: int
    stage: str
    stacks: str

    def __str__(self) -> str:
        how = "was silent for too long and was ended" if self.stacks else "ended"
        return f"a process {how} in {self.stage} with this shard in hand"


def run_folder(run_id: str) -> Path:
    """Where the workers of a run on this machine leave their traces.

    Raises:
        PermissionError: somebody else made that folder.
    """
    own = Path(tempfile.gettempdir()) / f"rembert-ray-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    if own.stat().st_uid != os.getuid():
        raise PermissionError(f"{own} belongs to somebody else: remove it, or set TMPDIR")
    return own / run_id


class Watchdog:
    """The watchdog of this process.

    Args:
        run_id: of the job's run.
        name: of the worker; a worker that takes the place of a dead one has its name.
        silence_s: seconds between two signs of life (`beat`) while a shard is in hand, after which the process ends.
    """

    def __init__(self, run_id: str, name: str, silence_s: float) -> None:
        self._silence_s = silence_s
        folder = run_folder(run_id)
        folder.mkdir(exist_ok=True)
        _forget_old_runs(folder.parent)
        self._task = folder / f"{name}.task"
        self.last_words = _last_words(self._task)
        self._stacks = (folder / f"{name}-{os.getpid()}.stacks").open("wb", buffering=0)
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)

    @contextmanager
    def at_work(self, stage: str, shard: int) -> Iterator[None]:
        """Around the work on one shard in one stage."""
        task = {"shard": shard, "stage": stage, "pid": os.getpid(), "since": time.time()}
        self._task.write_text(json.dumps(task))
        try:
            with silence_ends_process(self._silence_s, self._stacks):
                yield
        finally:
            self._task.unlink(missing_ok=True)


def describe_workers(run_id: str) -> str:
    """What the workers of a run on this machine are doing: the shard in hand, and the stacks of every thread."""
    folder = run_folder(run_id)
    tasks = {task["pid"]: task for task in map(_read_task, folder.glob("*.task")) if task}
    alive = {int(path.stem.rpartition("-")[2]): path for path in folder.glob("*.stacks") if _is_open(path)}
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    time.sleep(WRITING_TAKES_S)
    lines = []
    for pid, path in sorted(alive.items()):
        task = tasks.get(pid)
        doing = f"{task['stage']} of shard {task['shard']} for {time.time() - task['since']:.0f} s" if task else "idle"
        lines.append(f"process {pid}: {doing}\n{_tail(path)}")
    return "\n".join(lines) or "no worker of this run is alive here"


def _last_words(task_file: Path) -> LastWords | None:
    task = _read_task(task_file)
    task_file.unlink(missing_ok=True)
    if task is None:
        return None
    name, pid = task_file.stem, task["pid"]
    return LastWords(task["shard"], task["stage"], _tail(task_file.with_name(f"{name}-{pid}.stacks")))


def _read_task(path: Path) -> dict[str, Any] | None:
    # A process may have died while it wrote the file, and may end its task while we read.
    try:
        task: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return task


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-MAX_STACK_CHARACTERS:]
    except FileNotFoundError:
        return ""


def _is_open(stacks: Path) -> bool:
    """Whether the process in the file's name is alive and still ours: a signal must not reach another one."""
    handles = Path("/proc", stacks.stem.rpartition("-")[2], "fd")
    try:
        return any(handle.resolve() == stacks.resolve() for handle in handles.iterdir())
    except OSError:
        return False


def _forget_old_runs(folder: Path) -> None:
    for old in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > FORGOTTEN_AFTER_S:
                shutil.rmtree(old, ignore_errors=True)
