"""The stores that tests run on: a local folder, and a real S3 server. A pytest plugin, loaded by tests/conftest.py.

The server is Ceph's gateway (tests/servers/ceph_s3.sh). Its first start fetches 70 MB of Debian packages and unpacks
them into .cache/ceph (25 s on a slow line); later starts take 2 to 5 s. Where the packages cannot be had, moto's server
takes its place and the reason is printed: it honours conditional puts too, but accepts wrong secrets.
REMBERT_RAY_TEST_S3=moto chooses it outright.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rembert_ray.storage.filesystem import filesystem_for, retry_transient
from rembert_ray.storage.location import Location, locate
from tests.servers.fault_proxy import FaultProxy

REPOSITORY = Path(__file__).parents[2]
KEY, SECRET = "testkey", "testsecret123"


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    kind: str

    @property
    def checks_secrets(self) -> bool:
        return self.kind == "ceph"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server, its credentials in the environment until the session ends."""
    run = tmp_path_factory.mktemp("s3") / "run"
    processes: list[int] = []
    started = time.monotonic()
    try:
        server = _start_ceph(run, processes) or _start_moto(run, processes)
        print(f"\nS3 server: {server.kind}, up in {time.monotonic() - started:.1f} s", file=sys.stderr)
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                patch.delenv(name)
            patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            yield server
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def s3_folder(s3_server: S3Server) -> Location:
    """A folder in a fresh bucket."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    # On a machine that is busy Ceph was seen to take more than half a minute for it.
    create = functools.partial(filesystem_for("s3").call_s3, "create_bucket", Bucket=bucket)
    retry_transient(create, f"creating the bucket {bucket}")
    return locate(f"s3://{bucket}/folder")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> Location:
    """An empty folder, once on the local disk and once in the S3 store."""
    if request.param == "s3":
        folder: Location = request.getfixturevalue("s3_folder")
        return folder
    return locate(str(request.getfixturevalue("tmp_path") / "folder"))


def _start_ceph(run: Path, processes: list[int]) -> S3Server | None:
    if os.environ.get("REMBERT_RAY_TEST_S3") == "moto":
        return None
    script = Path(__file__).parent / "ceph_s3.sh"
    command = ["bash", str(script), str(REPOSITORY / ".cache" / "ceph"), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    processes.extend(int(path.read_text()) for path in sorted(run.glob("*.pid")))
    if done.returncode == 0:
        return S3Server(done.stdout.split()[-1], "ceph")
    reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    warnings.warn(f"no Ceph server for the S3 tests ({reason[0]}); using moto instead", stacklevel=2)
    return None


def _start_moto(run: Path, processes: list[int]) -> S3Server:
    run.mkdir(parents=True, exist_ok=True)
    log = run / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as file:
        processes.append(subprocess.Popen(command, stderr=file, stdout=file).pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(r"Running on (http://\S+)", log.read_text())
        if found:
            return S3Server(found[1], "moto")
        time.sleep(0.05)
    raise RuntimeError(f"moto's server did not start: {log.read_text()}")


@pytest.fixture
def faults(s3_folder: Location, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the S3 server; the client talks to it, and its `faults` may be filled at any time."""
    with FaultProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
