"""A real Ray head with its job server, and exactly the submit that the README shows, on the embedded demo."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.servers.ray_head import RAY, environment_for, free_port, run_head

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def head():
    """A head node in the foreground of a process group that ends with the test: (address, environment, home)."""
    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        environment = environment_for(home)
        environment["PATH"] = f"{RAY.parent}:{environment['PATH']}"
        port, dashboard = free_port(), free_port()
        options = ["--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}", "--include-dashboard=true"]
        with run_head(Path(folder), environment, *options) as node:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for_jobs(address, node)
            yield address, environment, home


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
