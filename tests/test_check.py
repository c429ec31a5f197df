"""Bad input: every fault at once, before Ray starts, with exit code 2. No ray, no torch but to make the model."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rembert_ray.check import check_job
from rembert_ray.cli import app
from rembert_ray.cluster import ENCODE_CPUS, WRITE_CPUS, fit_pools
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from tests.conftest import write_corpus, write_manifest


@pytest.fixture
def job(tmp_path, model_folder):
    """A usable job; tests break it."""
    shutil.copytree(model_folder, tmp_path / "model")
    write_corpus(tmp_path / "corpus" / "a.parquet", ["one", "two"])
    return write_manifest(
        tmp_path,
        "task: tag\nmodel: model\ninput: {path: corpus, keep: [id]}\noutput: {path: out}\n",
    )


def faults(job, *overrides):
    with pytest.raises(UnusableError) as error:
        check_job(load_manifest(job, overrides))
    return [str(fault) for fault in error.value.faults]


def test_a_usable_job_is_planned_and_nothing_is_left_behind(job, tmp_path):
    checked = check_job(load_manifest(job), for_writing=False)
    assert checked.plan.n_rows == 2
    assert checked.windows.max_tokens == 512
    assert checked.precision == "float32"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task=tga", "unknown task 'tga' (did you mean 'tag'?)"),
        ("head.agregation=first", "head.agregation: unknown key (did you mean 'aggregation'?)"),
        ("head.aggregation=firts", "head.aggregation: expected 'none'"),
        ("input.columns.txt=text", "task tag reads no column 'txt' (did you mean 'text'?)"),
        ("input.columns.text=txet", "txet"),
        ("input.keep=[id, lang]", "lang"),
        ("input.keep=[text]", None),
        ("input.path=nowhere", "nothing there"),
        ("model=nowhere", "config.json: no such file"),
        ("text.max_tokens=600", "600 is more than the model's 512 positions"),
        ("text.overlap=510", "510 leaves nothing new in a window of 512 tokens"),
        ("output.path=/proc/out", "/proc/out"),
        ("precision=float8", "precision: float8 products need a GPU, and resources.gpus_per_actor is 0 (set "),
    ],
)
def test_each_fault_says_what_and_where(job, override, said):
    if said is None:
        assert check_job(load_manifest(job, [override])).plan.n_rows == 2
        return
    found = faults(job, override)
    assert any(said in fault for fault in found), found


def test_five_faults_are_five_lines_and_exit_code_2(job, tmp_path):
    (tmp_path / "model" / "sentencepiece.model").unlink()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    overrides = ["head.aggregation=some", "input.columns.text=body", "output.path=/proc/out"]
    arguments = [argument for override in overrides for argument in ("--set", override)]
    done = CliRunner().invoke(app, ["run", job, *arguments])
    assert done.exit_code == 2
    lines = [line for line in done.output.splitlines() if " event=fault " in line]
    assert len(lines) == 5, done.output
    for word in ("aggregation", "body", "/proc/out", "sentencepiece.model", "missing tensors"):
        assert any(word in line for line in lines), word


def test_a_kept_column_must_not_have_the_name_of_a_written_one(job, tmp_path):
    table = pa.table({"text": ["x"], "id": ["1"], "n_tokens": [3], "entities": ["y"]})
    pq.write_table(table, tmp_path / "corpus" / "a.parquet")
    found = faults(job, "input.keep=[id, n_tokens, entities]")
    assert sum("writes a column" in fault for fault in found) == 2
    assert sum("input.rename: {n_tokens: own_n_tokens}" in fault for fault in found) == 1
    keep = "input.keep=[id, n_tokens, entities]"
    rename = "input.rename={n_tokens: own_tokens, entities: gold}"
    checked = check_job(load_manifest(job, [keep, rename]))
    assert checked.plan.schema.names == ["id", "n_tokens", "entities"]
    assert checked.manifest.input.kept_names == ["id", "own_tokens", "gold"]
    other = check_job(load_manifest(job, [keep, "input.rename={n_tokens: own_tokens, entities: silver}"]))
    assert other.plan.fingerprint.digest != checked.plan.fingerprint.digest
    assert any("not in input.keep: body" in fault for fault in faults(job, "input.rename={body: text}"))
    assert any("two kept columns are called id" in fault for fault in faults(job, keep, "input.rename={entities: id}"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"text": pa.array([1, 2])}, "text"),
        ({"text": pa.array([[1.0], []], pa.list_(pa.float32()))}, "text"),
        ({"other": ["a", "b"]}, "no column 'text'"),
        ({"text": pa.array([], pa.string())}, "empty"),
    ],
)
def test_wrong_columns_and_empty_corpora(job, tmp_path, content, said):
    pq.write_table(pa.table(content), tmp_path / "corpus" / "a.parquet")
    assert any(said in fault for fault in faults(job, "input.keep=[]"))


def test_a_broken_file_among_good_ones_is_set_aside(job, tmp_path):
    (tmp_path / "corpus" / "b.parquet").write_bytes(b"PAR1 this is no footer PAR1")
    pq.write_table(pa.table({"id": ["1"], "text": [1]}), tmp_path / "corpus" / "c.parquet")
    checked = check_job(load_manifest(job))
    assert checked.plan.n_rows == 2
    assert [url.rsplit("/", 1)[1] for _, url, _ in checked.plan.refused] == ["b.parquet", "c.parquet"]


def test_no_parquet_and_a_broken_footer_are_named(job, tmp_path):
    (tmp_path / "corpus" / "a.parquet").write_bytes(b"PAR1 this is no footer PAR1")
    assert any("a.parquet" in fault and "footer" in fault for fault in faults(job))
    (tmp_path / "corpus" / "a.parquet").rename(tmp_path / "corpus" / "a.csv")
    assert any("no Parquet file" in fault for fault in faults(job))


def test_an_output_inside_rays_working_directory_is_refused(job):
    inside = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/out"
    assert any("Ray deletes after the job" in fault for fault in faults(job, f"output.path={inside}"))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(job, tmp_path):
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["vocab_size"] = 100
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert any("the tokenizer has 8,007 tokens" in fault for fault in faults(job))


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 16, 64])
def test_auto_pools_fit_the_cluster(job, cpus):
    pools = fit_pools(load_manifest(job), cpus, 0)
    assert pools.actors * pools.actor_cpus + pools.encoders * (ENCODE_CPUS + WRITE_CPUS) <= cpus
    gpu = fit_pools(load_manifest(job, ["resources.gpus_per_actor=1"]), max(cpus, 8), 2)
    assert (gpu.actors, gpu.actor_gpus, gpu.encoders) == (2, 1.0, 4)


def test_what_the_cluster_cannot_hold_is_refused(job):
    with pytest.raises(UnusableError, match="the cluster has 8 and 0"):
        fit_pools(load_manifest(job, ["resources.gpus_per_actor=1"]), 8, 0)
    with pytest.raises(UnusableError, match="ask for fewer"):
        fit_pools(load_manifest(job, ["resources.actors=9", "resources.cpus_per_actor=1"]), 8, 0)
