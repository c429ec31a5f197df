"""kill -9 of the driver in the middle of a job; the next run ends it, with the same rows as an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import write_corpus, write_manifest

REPOSITORY = Path(__file__).parent.parent.parent
N_FILES, ROWS = 12, 40


@pytest.fixture
def manifest(tmp_path, short_model_folder):
    for number in range(N_FILES):
        texts = [f"the light on hill number {number} seen from row {row} " * (1 + row % 9) for row in range(ROWS)]
        write_corpus(tmp_path / "corpus" / f"{number:02d}.parquet", texts)
    return write_manifest(
        tmp_path,
        f"""
task: tag
model: {short_model_folder}
input: {{path: corpus, keep: [id, text]}}
output: {{path: out}}
head: {{aggregation: first, ignore_labels: []}}
text: {{overlap: 4}}
sharding: {{rows: 20}}
""",
    )


def start(manifest: str, output: Path) -> subprocess.Popen[bytes]:
    """A driver with a Ray of its own."""
    command = [sys.executable, "-m", "rembert_ray", "run", manifest, "--set", f"output.path={output}"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(REPOSITORY), "RAY_TMPDIR": "/tmp"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)


def rows_of(output: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(part).read() for part in sorted(output.glob("part-*.parquet"))])


def wait_for_parts(output: Path, n_parts: int, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while len(list(output.glob("part-*.parquet"))) < n_parts:
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_kill_and_run_again_gives_the_rows_of_an_undisturbed_run(manifest, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(manifest, undisturbed).wait(300) == 0
    driver = start(manifest, killed)
    wait_for_parts(killed, random.randint(1, 18), driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(60)
    assert not (killed / "_SUCCESS").exists()
    assert start(manifest, killed).wait(300) == 0
    assert (killed / "_SUCCESS").exists()
    assert rows_of(killed).equals(rows_of(undisturbed))
    assert len(list(killed.glob("part-*.parquet"))) == N_FILES * ROWS // 20
    assert not list(killed.glob(".tmp-*"))


def test_sigterm_ends_the_run_with_75_and_it_resumes(manifest, tmp_path):
    output = tmp_path / "stopped"
    driver = start(manifest, output)
    wait_for_parts(output, 2, driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(120) == 75
    before = {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}
    assert 2 <= len(before) < 24
    assert start(manifest, output).wait(300) == 0
    after = {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}
    assert len(after) == 24
    assert all(after[name] == before[name] for name in before)
