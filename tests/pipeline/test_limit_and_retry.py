"""`run --limit` and `retry` on Ray, and `retry` killed after each of its deletions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from rembert_ray.job import run
from rembert_ray.plan import require_plan
from rembert_ray.retry import retry
from rembert_ray.storage.commit import Part, commit_part, part_name
from rembert_ray.storage.location import locate
from tests.conftest import write_corpus, write_manifest
from tests.pipeline.test_job import parts_of, rows_of, run_quietly

pytestmark = pytest.mark.usefixtures("ray_session")

KILLED = """
import os, sys
from rembert_ray import retry
n_left = int(sys.argv[2])
def delete(location, real=retry._delete):
    global n_left
    name = real(location)
    n_left -= 1
    if not n_left:
        os.kill(os.getpid(), 9)
    return name
retry._delete = delete
retry.DELETE_THREADS = 1
retry.retry(sys.argv[1])
"""


@pytest.fixture
def manifest(tmp_path, short_model_folder):
    """Six shards of 20 rows; two of them have a row without a text."""
    for number in range(3):
        texts = [f"light number {number} on row {row}" for row in range(40)]
        texts[5] = None if number else texts[5]
        write_corpus(tmp_path / "corpus" / f"{number}.parquet", texts)
    text = f"""
task: tag
model: {short_model_folder}
input: {{path: corpus, keep: [id]}}
output: {{path: out}}
head: {{aggregation: none, ignore_labels: []}}
text: {{overlap: 4}}
sharding: {{rows: 20}}
"""
    return write_manifest(tmp_path, text)


def test_a_limit_ends_with_whole_shards_and_the_next_run_goes_on(manifest, tmp_path):
    output = tmp_path / "out"
    assert run(manifest, limit_rows=30) == 75
    assert [int(name[5:13]) for name in sorted(parts_of(output))] == [0, 1]
    assert not (output / "_SUCCESS").exists()
    last = json.loads((output / "_rembert_ray" / "status.json").read_text())
    assert (last["state"], last["exit_code"]) == ("stopped", 75)
    assert last["message"] == "stopped at --limit 30: 40 of 120 rows are committed; run without it to go on"
    before = parts_of(output)
    assert run(manifest, limit_rows=40) == 75, "so many are there already"
    assert parts_of(output) == before
    assert run(manifest, limit_rows=120) == 0
    assert (output / "_SUCCESS").exists()
    assert {name: time for name, time in parts_of(output).items() if name in before} == before
    assert len(rows_of(output)) == 120
    assert run(manifest, limit_rows=1) == 0, "it is complete"


def test_rows_with_an_error_are_made_again_and_nothing_else(manifest, tmp_path):
    output = tmp_path / "out"
    assert run_quietly(manifest)[0] == 0
    whole, before = rows_of(output), parts_of(output)
    plan = require_plan(str(output))
    shard, digest = plan.shard(1), plan.fingerprint.digest
    name = part_name(1, digest)
    (output / name).unlink()
    # As if its device had been out of memory once.
    rows = whole.slice(20, 20)
    errors = pa.array(["out of memory in 12 MiB", *[None] * 19], pa.string())
    rows = rows.set_column(rows.column_names.index("error"), "error", errors)
    part = Part(1, digest, plan.plan_id, shard.url, shard.row_start, shard.n_rows, "once")
    commit_part(locate(str(output)), part, rows, {"n_errors": "1", "infer_s": "0.1"})
    assert retry(str(output), "out of memory") == 0
    assert rows_of(output).equals(whole)
    after = parts_of(output)
    assert [other for other in before if after[other] != before[other]] == [name]
    assert (output / "_SUCCESS").exists()
    assert retry(str(output), "out of memory") == 0, "nothing is left to try again"
    assert parts_of(output) == after


def test_killed_after_any_deletion_a_plain_run_completes_the_output(manifest, tmp_path):
    output = tmp_path / "out"
    assert run_quietly(manifest)[0] == 0
    whole, before = rows_of(output), parts_of(output)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for n_deleted in (1, 2, 3):
        command = [sys.executable, "-c", KILLED, str(output), str(n_deleted)]
        killed = subprocess.run(command, check=False, timeout=240, env=environment)
        assert killed.returncode == -signal.SIGKILL
        assert not (output / "_SUCCESS").exists()
        assert len(parts_of(output)) == len(before) - (n_deleted - 1)
        assert run_quietly(manifest)[0] == 0
        assert rows_of(output).equals(whole)
        assert (output / "_SUCCESS").exists()
