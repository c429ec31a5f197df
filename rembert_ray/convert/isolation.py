"""Runs `unpack` in a process of its own: what a damaged or hostile file does there ends there.

It must not open any file of the checkpoint itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rembert_ray.errors import Fault, UnusableError

START_DEADLINE_S = 300.0
SLOWEST_BYTES_PER_S = 5_000_000
# The child gets these and no credentials.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")


def unpack_isolated(files: Sequence[Path], target: Path) -> None:
    """Write all tensors of `files` to the safetensors file `target`, in a child process.

    Raises:
        UnusableError: what the child found wrong, or how it died.
    """
    command = [sys.executable, "-P", "-m", "rembert_ray.convert.unpack", str(target), *map(str, files)]
    deadline_s = START_DEADLINE_S + sum(file.stat().st_size for file in files) / SLOWEST_BYTES_PER_S
    run_child(command, where=", ".join(map(str, files)), deadline_s=deadline_s)


def run_child(command: Sequence[str], where: str, deadline_s: float) -> None:
    """Run a command that ends with 0, or with 2 and a JSON list of faults.

    Raises:
        UnusableError: those faults; or it died or hung, with what is known about it.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # The child finds the packages where this process does; an empty entry is the working folder.
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=deadline_s
        )
    except subprocess.TimeoutExpired as error:
        what = f"the process that reads it did not end within {deadline_s:.0f} s"
        raise UnusableError(Fault(where, what, "the file is damaged, or the disk hangs")) from error
    if child.returncode == UnusableError.exit_code:
        raise UnusableError([Fault(*fault) for fault in json.loads(child.stdout)])
    if child.returncode < 0:
        what = f"the process that reads it died of {signal.Signals(-child.returncode).name}"
        raise UnusableError(Fault(where, what, "out of memory, or the file is damaged: download it again"))
    if child.returncode > 0:
        said = (child.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UnusableError(Fault(where, f"the process that reads it failed with {said}", "download it again"))
