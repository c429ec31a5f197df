"""A real Ray head with its job server, and exactly the submit that the README shows, on the embedded demo."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).parent.parent.parent
RAY = Path(sys.executable).parent / "ray"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def head():
    """A head node in the foreground of a process group that ends with the test: (address, environment, home)."""
    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        port, dashboard, agent = free_port(), free_port(), free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"HOME": str(home), "RAY_AUTH_MODE": "disabled"}
        environment["PATH"] = f"{RAY.parent}:{environment['PATH']}"
        command = [str(RAY), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
        command += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}/ray", "--disable-usage-stats"]
        # Jobs are started by the node's agent; its default port belongs to the other Ray of this test session.
        command += [f"--dashboard-agent-listen-port={agent}"]
        command += ["--object-store-memory=268435456", "--include-dashboard=true"]
        node = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for_jobs(address, node)
            yield address, environment, home
        finally:
            os.killpg(node.pid, signal.SIGTERM)
            try:
                node.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)


def wait_for_jobs(address: str, node: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5):
                return
        except OSError:
            assert node.poll() is None, "the head node ended"
            assert time.monotonic() < deadline, "no job server"
            time.sleep(0.5)


def submit(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it; the job server answers before the agent that starts jobs does, and says so."""
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        if "No available agent to submit job" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_the_submit_of_the_readme_runs_as_it_stands(head):
    address, environment, home = head
    command = [str(RAY), "job", "submit", f"--address={address}", "--working-dir", ".", "--", "python", "jobs/tag.py"]
    done = submit(command, environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    output = home / "rembert-ray-demo" / "tag"
    expected = ds.dataset(REPOSITORY / "demo" / "corpus").to_table(columns=["id", "text"])
    rows = pq.read_table(output)
    assert rows["id"].to_pylist() == expected["id"].to_pylist()
    assert json.loads((output / "_SUCCESS").read_text())["rows_out"] == rows.num_rows
    texts = expected["text"].to_pylist()
    for text, row in list(zip(texts, rows.to_pylist(), strict=True))[::50]:
        assert row["error"] is None
        assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in row["entities"])
    assert "rembert-ray sample" in done.stdout


@pytest.mark.slow
def test_ray_job_stop_ends_with_75_and_the_next_submit_goes_on(head):
    address, environment, home = head
    output = home / "rembert-ray-demo" / "tag"
    job = [str(RAY), "job"]
    work = ["--working-dir", ".", "--", "python", "jobs/tag.py"]
    started = submit(
        [*job, "submit", f"--address={address}", "--no-wait", "--submission-id=stopped", *work], environment
    )
    assert started.returncode == 0, started.stderr
    deadline = time.monotonic() + 300
    while len(list(output.glob("part-*.parquet"))) < 2:
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.1)
    # What Ray sends is SIGTERM, and SIGKILL three seconds later.
    subprocess.run([*job, "stop", f"--address={address}", "stopped"], env=environment, check=True, capture_output=True)
    with urllib.request.urlopen(f"{address}/api/jobs/stopped", timeout=10) as reply:
        assert json.load(reply)["status"] == "STOPPED"
    status = json.loads((output / "_rembert_ray" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    before = {part.name: part.read_bytes() for part in output.glob("part-*.parquet")}
    assert not (output / "_SUCCESS").exists()
    done = submit([*job, "submit", f"--address={address}", *work], environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"resume      {len(before)} shards are there already" in done.stdout
    after = {part.name: part.read_bytes() for part in output.glob("part-*.parquet")}
    assert {name: after[name] for name in before} == before
    assert json.loads((output / "_SUCCESS").read_text())["rows_out"] == pq.read_table(output).num_rows
