"""A real Ray head with its job server, and exactly the submit that the README shows, on the embedded demo."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rembert_ray.report import metrics
from tests.servers.ray_head import RAY, environment_for, free_port, run_head

REPOSITORY = Path(__file__).parent.parent.parent
EXPORTED = f"ray_{metrics.PREFIX}"


@dataclass
class Head:
    """A head node: where its job server and its metrics are, and the home of its processes."""

    address: str
    metrics: str
    environment: dict[str, str]
    home: Path


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """In the foreground of a process group that ends with the test."""
    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        environment = environment_for(home)
        environment["PATH"] = f"{RAY.parent}:{environment['PATH']}"
        port, dashboard, metrics = free_port(), free_port(), free_port()
        options = ["--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}", "--include-dashboard=true"]
        with run_head(Path(folder), environment, *options, f"--metrics-export-port={metrics}") as node:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for_jobs(address, node)
            yield Head(address, f"http://127.0.0.1:{metrics}/metrics", environment, home)


@pytest.fixture(scope="module")
def submitted(head: Head) -> subprocess.CompletedProcess[str]:
    """The submit of the README, at its end."""
    command = [str(RAY), "job", "submit", f"--address={head.address}", "--working-dir", ".", "--"]
    return submit([*command, "python", "jobs/tag.py"], head.environment)


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


def test_the_submit_of_the_readme_runs_as_it_stands(head, submitted):
    assert submitted.returncode == 0, submitted.stdout[-4000:] + submitted.stderr[-4000:]
    output = head.home / "rembert-ray-demo" / "tag"
    expected = ds.dataset(REPOSITORY / "demo" / "corpus").to_table(columns=["id", "text"])
    rows = pq.read_table(output)
    assert rows["id"].to_pylist() == expected["id"].to_pylist()
    assert json.loads((output / "_SUCCESS").read_text())["rows_out"] == rows.num_rows


def test_metrics_are_exported_and_are_those_of_the_dashboard_and_the_alerts(head, submitted):
    assert submitted.returncode == 0
    with urllib.request.urlopen(head.metrics, timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    values = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(EXPORTED)}
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith(f"# TYPE {EXPORTED}")}
    # What did not happen has no value yet; everything else is there.
    never = {"retries", "row_errors", "shards_failed", "drift_psi"}
    expected = {f"{EXPORTED}{name}_total": "counter" for name in metrics.COUNTERS if name not in never}
    expected |= {EXPORTED + name: "gauge" for name in metrics.GAUGES if name not in never}
    assert expected.items() <= kinds.items()
    assert values[EXPORTED + "rows_total"] == 7268
    assert values[EXPORTED + "shards_there"] == values[EXPORTED + "shards_planned"] == 26
    assert abs(values[EXPORTED + "last_success_timestamp_seconds"] - time.time()) < 600
    assert values[EXPORTED + "running"] == 0
    assert 0 < values[EXPORTED + "tokens_computed_total"] <= values[EXPORTED + "tokens_total"]
    known = {f"{EXPORTED}{name}_total" for name in metrics.COUNTERS} | {EXPORTED + name for name in metrics.GAUGES}
    for file in ("dashboard.json", "alerts.yaml"):
        named = set(re.findall(rf"{EXPORTED}\w+", (REPOSITORY / "manifests" / "grafana" / file).read_text()))
        assert named <= known, f"{file} names what no run exports"
    dashboard = (REPOSITORY / "manifests" / "grafana" / "dashboard.json").read_text()
    assert {name for name in known if name not in dashboard} == set(), "the dashboard shows every metric"
