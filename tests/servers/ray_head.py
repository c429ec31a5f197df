"""A Ray head in processes of its own, the leader of a process group that ends with it; and ports that nobody holds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RAY = Path(sys.executable).parent / "ray"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_for(home: Path) -> dict[str, str]:
    """This process's, with another home: no test may touch the user's ~/.ray, nor depend on Ray's defaults."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return environment | {"HOME": str(home), "RAY_AUTH_MODE": "disabled"}


@contextmanager
def run_head(folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The head with these further options of `ray start`; its files are in `folder`."""
    command = [str(RAY), "start", "--head", "--block", f"--temp-dir={folder}/ray", "--disable-usage-stats"]
    # Jobs are started by the node's agent; its default port belongs to the other Ray of this test session.
    command += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=268435456", *options]
    with Path(folder, "head.log").open("wb") as log:
        node = subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)
    try:
        yield node
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        try:
            node.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
