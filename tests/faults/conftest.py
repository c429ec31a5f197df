"""One Ray head for all fault tests, in processes of its own, with S3 behind a fault proxy; and a job on each store."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from rembert_ray.storage.location import Location
from tests.faults.jobs import (
    MANIFEST,
    REPOSITORY,
    ROWS_PER_SHARD,
    FaultJob,
    environment_of,
    expected_rows,
    write_corpus,
)
from tests.servers.fault_proxy import FaultProxy
from tests.servers.ray_head import RAY, environment_for, free_port, run_head
from tests.servers.s3 import S3Server


@dataclass(frozen=True)
class Head:
    """A running Ray head: where it is, and the proxy through which it reaches S3."""

    address: str
    proxy: FaultProxy
    environment: dict[str, str]

    def add_node(self, n_cpus: int) -> subprocess.Popen[bytes]:
        """A worker node, the leader of a process group with all of its workers."""
        command = [str(RAY), "start", "--block", f"--num-cpus={n_cpus}", f"--address={self.address}"]
        command += ["--object-store-memory=134217728", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        command += [f"--dashboard-agent-listen-port={free_port()}"]
        with tempfile.TemporaryFile() as log:
            node = subprocess.Popen(command, env=self.environment, start_new_session=True, stdout=log, stderr=log)
            deadline = time.monotonic() + 60
            while b"Ray runtime started" not in os.pread(log.fileno(), 2**20, 0):
                assert node.poll() is None, "the node ended"
                assert time.monotonic() < deadline, "the node did not start"
                time.sleep(0.1)
        return node


@pytest.fixture(scope="session")
def ray_head(s3_server: S3Server) -> Iterator[Head]:
    """Four logical CPUs, so that a job has two infer and two encode actors."""
    with (
        FaultProxy(s3_server.endpoint) as proxy,
        tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder,
    ):
        environment = environment_for(Path(folder)) | {"PYTHONPATH": str(REPOSITORY)}
        environment["AWS_ENDPOINT_URL"] = proxy.endpoint
        port = free_port()
        options = ["--num-cpus=4", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
        with run_head(Path(folder), environment, *options):
            yield Head(f"127.0.0.1:{port}", proxy, environment)


@pytest.fixture
def proxy(ray_head: Head) -> Iterator[FaultProxy]:
    """The proxy of all drivers and workers; what a test tells it to break ends with the test."""
    yield ray_head.proxy
    ray_head.proxy.faults.clear()
    ray_head.proxy.seen.clear()


@pytest.fixture
def job(store: Location, ray_head: Head, short_model_folder: Path, tmp_path: Path) -> FaultJob:
    """The job with its corpus and output on a local disk, and again on S3."""
    write_corpus(store.child("corpus"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    manifest = scratch / "job.yaml"
    places = {"corpus": store.child("corpus"), "output": store.child("out"), "model": short_model_folder}
    manifest.write_text(MANIFEST.format(**places, rows=ROWS_PER_SHARD))
    endpoint = ray_head.proxy.endpoint if store.is_s3 else None
    return FaultJob(store, scratch, str(manifest), environment_of(ray_head.address, endpoint))


@pytest.fixture(scope="session")
def expected(short_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows of an undisturbed run."""
    return expected_rows(short_model_folder, tmp_path_factory.mktemp("expected"))
