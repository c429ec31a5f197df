"""`run --dry-run`: rows go through the stages in this process, and nothing is written."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rembert_ray.check import check_job
from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.trial import dry_run, spread_rows
from tests.conftest import write_corpus, write_manifest


@pytest.fixture
def manifest(tmp_path, model_folder):
    for number in range(3):
        texts = [f"file {number} row {row} light on the hill" for row in range(40)]
        texts[0] = None if number == 2 else texts[0]
        write_corpus(tmp_path / "corpus" / f"{number}.parquet", texts)
    text = f"""
task: tag
model: {model_folder}
input: {{path: corpus, keep: [id], rename: {{id: number}}}}
output: {{path: out}}
head: {{aggregation: none, ignore_labels: []}}
sharding: {{rows: 20}}
"""
    return write_manifest(tmp_path, text)


def test_rows_of_all_files_are_rendered_and_nothing_is_written(manifest, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["run", manifest, "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("plan ")
    assert sum(line.startswith("row ") for line in lines) == 11, "6 shards, 2 rows each, 1 of them without a text"
    (error,) = (line for line in lines if line.startswith("error "))
    assert error.split(maxsplit=1)[1] == "text is null: {'number': '2-0'}"
    assert any(line.startswith("load ") for line in lines)
    assert any(line.startswith("infer ") for line in lines)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_ray_is_loaded(manifest):
    code = f"import sys; from rembert_ray.trial import dry_run; dry_run({manifest!r}); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_a_dry_run_in_which_nothing_works_ends_with_3(manifest, tmp_path):
    write_corpus(tmp_path / "none" / "a.parquet", [None] * 5)
    assert dry_run(manifest, [f"input.path={tmp_path}/none"]) == 3


def test_without_a_gpu_a_job_for_gpus_is_not_tried(manifest):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UnusableError, match="this process has no GPU"):
        dry_run(manifest, ["resources.gpus_per_actor=1"])


def test_a_book_among_sentences_is_not_tried(manifest, tmp_path):
    write_corpus(tmp_path / "corpus" / "novel.parquet", ["a word " * 3000])
    plan = check_job(load_manifest(manifest), for_writing=False).plan
    tried = list(spread_rows(plan, 4))
    assert sum(shard.n_rows for shard in tried) == 4
    assert not any("novel" in shard.url for shard in tried)
    write_corpus(tmp_path / "books" / "a.parquet", ["a word " * 3000] * 3)
    plan = check_job(load_manifest(manifest, [f"input.path={tmp_path}/books"]), for_writing=False).plan
    assert sum(shard.n_rows for shard in spread_rows(plan, 4)) == 3, "where all are books, books are usual"
