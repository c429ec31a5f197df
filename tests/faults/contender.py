"""A process that tries to take a lease whenever it is told to; run by the tests beside it.

Each line of its standard input is an output's URL; it answers `held`, or what it was told. Not a test itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rembert_ray.errors import RembertRayError
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import Location, locate

REPOSITORY = Path(__file__).parents[2]


class Contender:
    """The process, as seen by a test."""

    def __init__(self, name: str, **environment: str) -> None:
        command = [sys.executable, "-m", "tests.faults.contender", name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | environment,
        )
        assert self.hear() == "ready"

    def tell(self, output: Location) -> None:
        """Go."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{output}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """The answer, waited for."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """It ends when nothing more can be said to it."""
        self._process.communicate(timeout=60)


def main() -> None:
    """See the module."""
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            # Of another host, so that nobody can see whether it lives.
            owner = LeaseOwner("elsewhere", 1, sys.argv[1])
            Lease.acquire(locate(line.strip()), owner, heartbeat=False)
            print("held", flush=True)
        except RembertRayError as error:
            print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
