"""What the operator allows: a manifest from somebody else cannot read /etc, nor write outside of what is allowed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rembert_ray.check import check_job
from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.storage.allowed import ENVIRONMENT, AllowedRoots
from rembert_ray.storage.location import Location
from tests.conftest import write_corpus, write_manifest

REFUSED = "is outside of what the operator allows"


@pytest.fixture
def job(tmp_path, model_folder, monkeypatch):
    """A usable job whose model, corpus and output are below `data`; its manifest is not."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    shutil.copytree(model_folder, tmp_path / "data" / "model")
    write_corpus(tmp_path / "data" / "corpus" / "a.parquet", ["one", "two"])
    return write_manifest(
        tmp_path,
        "task: tag\nmodel: data/model\ninput: {path: data/corpus, keep: [id]}\noutput: {path: data/out}\n",
    )


def check(job, root, *overrides):
    allowed = AllowedRoots.given([str(root)])
    return check_job(load_manifest(job, overrides, allowed), allowed)


def faults(job, root, *overrides):
    with pytest.raises(UnusableError) as error:
        check(job, root, *overrides)
    return [str(fault) for fault in error.value.faults]


def test_everything_below_the_root_is_taken(job, tmp_path):
    assert check(job, tmp_path / "data").plan.n_rows == 2
    assert check(job, tmp_path / "nothing" / ".." / "data", f"input.path={tmp_path}/data/*/a*").plan.n_rows == 2
    assert check(job, "/").plan.n_rows == 2
    assert check(job, "file:///").plan.n_rows == 2


@pytest.mark.parametrize(
    "override",
    [
        "model=/etc",
        "input.path=/etc",
        "output.path=/etc/out",
        "input.path=/etc/*.parquet",
        "input.path=/*/passwd",
        "model={data}/../elsewhere",
        "output.path={data}base/out",
        "input.path={data}base/*",
        "input.path={data}*/a.parquet",
        "output.path=~/out",
        "output.path=file:///etc/out",
        "output.path=s3://bucket/out",
        "input.path=https://169.254.169.254/latest",
        "model=memory://model",
    ],
)
def test_what_is_outside_is_refused_at_its_key_and_not_looked_at(job, tmp_path, override):
    (tmp_path / "database" / "out").mkdir(parents=True)
    override = override.format(data=tmp_path / "data")
    [fault] = faults(job, tmp_path / "data", override)
    assert fault.startswith(f"--set {override.partition('=')[0]}: ")
    assert REFUSED in fault
    assert str(tmp_path / "data") in fault
    assert "ask the operator (--allow-root" in fault


def test_all_places_are_named_at_once_with_the_line_of_each(job, tmp_path):
    found = faults(job, tmp_path / "other")
    assert [fault.split()[1] for fault in found] == ["model:", "input.path:", "output.path:"]
    assert found[0].startswith(f"{job}:2:1 model: ")


def test_the_models_of_several_heads_count(job, tmp_path):
    heads = "head={heads: [{task: embed}, {task: tag, model: /etc}]}"
    [fault] = faults(job, tmp_path / "data", "task=several", heads)
    assert "head.heads[1].model: /etc is outside" in fault


@pytest.mark.parametrize("link", ["model", "corpus", "out"])
def test_a_link_to_a_folder_outside_is_refused(job, tmp_path, link):
    outside = tmp_path / "outside"
    shutil.move(tmp_path / "data" / link, outside) if link != "out" else outside.mkdir()
    (tmp_path / "data" / link).symlink_to(outside)
    [fault] = faults(job, tmp_path / "data")
    assert f"{tmp_path}/data/{link} leads to {outside}, which {REFUSED}" in fault


@pytest.mark.parametrize("inside", ["model/config.json", "corpus/a.parquet", "out/_rembert_ray"])
def test_a_link_to_a_file_outside_is_refused(job, tmp_path, inside):
    link, outside = tmp_path / "data" / inside, tmp_path / "outside"
    link.parent.mkdir(exist_ok=True)
    shutil.move(link, outside) if link.exists() else outside.mkdir()
    link.symlink_to(outside)
    [fault] = faults(job, tmp_path / "data")
    assert f"{link} leads to {outside}, which {REFUSED}" in fault


def test_links_between_allowed_places_are_fine(job, tmp_path):
    (tmp_path / "data" / "corpus").rename(tmp_path / "data" / "texts")
    (tmp_path / "data" / "corpus").symlink_to("texts")
    (tmp_path / "link").symlink_to("data")
    assert check(job, tmp_path / "link").plan.n_rows == 2
    assert check(job, tmp_path / "data", f"input.path={tmp_path}/link/corpus").plan.n_rows == 2


def test_many_links_make_no_many_faults(tmp_path):
    links = [Location(f"/etc/{number}") for number in range(100)]
    assert len(AllowedRoots.given([str(tmp_path)]).file_faults("input.path", links)) == 20


@pytest.mark.parametrize(
    ("root", "place", "is_allowed"),
    [
        ("s3://bucket/data", "s3://bucket/data/x", True),
        ("s3://bucket/data", "s3://bucket/data", True),
        ("s3://bucket/data/", "S3A://bucket/data/x", True),
        ("s3://bucket/data", "s3://bucket/database/x", False),
        ("s3://bucket/data", "s3://bucket/dat*/x", False),
        ("s3://bucket/data", "s3://bucket/data/*/x", True),
        ("s3://bucket", "s3://bucket2/x", False),
        ("S3://", "s3://any/x", True),
        ("s3://", "memory://any/x", False),
        ("s3://", "/data", False),
        ("file://", "/data", True),
        ("https://host", "https://host.evil/x", False),
        ("https://host", "https://host:80/x", False),
        ("/data", "data", False),
    ],
)
def test_below_means_by_components(root, place, is_allowed):
    found = AllowedRoots.given([root]).faults("input.path", place, is_pattern=True)
    assert (found == []) == is_allowed


@pytest.mark.parametrize("place", ["s3://bucket/data/../x", "s3://bucket/data/%2e%2e/x", "s3://bucket/data\\..\\x"])
def test_no_spelling_climbs_out_of_a_prefix(place):
    with pytest.raises(UnusableError):
        AllowedRoots.given(["s3://bucket/data"]).faults("input.path", place, is_pattern=True)


def test_the_environment_is_enough_and_the_option_only_narrows_it(job, tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, f"s3://bucket, {tmp_path}/data")
    assert check_job(load_manifest(job)).plan.n_rows == 2
    assert check(job, "/").plan.n_rows == 2
    with pytest.raises(UnusableError, match=REFUSED):
        check_job(load_manifest(job, ["model=/etc"]))
    assert len(faults(job, tmp_path / "data" / "corpus")) == 2
    assert len(faults(job, tmp_path / "other")) == 3


def test_a_variable_without_a_root_allows_nothing_by_accident(job, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, " , ")
    with pytest.raises(UnusableError, match=f"{ENVIRONMENT}: is set, but names no root"):
        load_manifest(job)


@pytest.mark.parametrize("root", ["", "/data/*", "s3://bucket/..", "nope://x", "nope://", "s3://KEY:SECRET@bucket"])
def test_a_root_that_is_no_place_is_refused(root):
    with pytest.raises(UnusableError):
        AllowedRoots.given([root])


def test_a_manifest_at_a_url_must_be_allowed_too(tmp_path):
    with pytest.raises(UnusableError, match=f"manifest: memory://jobs/job.yaml {REFUSED}"):
        load_manifest("memory://jobs/job.yaml", (), AllowedRoots.given([str(tmp_path)]))


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_verbs_take_the_option(job, tmp_path, verb):
    ended = CliRunner().invoke(app, [verb, job, "--allow-root", str(tmp_path / "a"), "--allow-root", "s3://"])
    assert ended.exit_code == 2
    assert ended.output.count(f"{REFUSED}: {tmp_path}/a, s3://") == 3
    assert not (tmp_path / "data" / "out").exists()


def test_the_jobs_take_the_option(tmp_path, monkeypatch, capsys):
    import runpy

    job = Path(__file__).parents[2] / "jobs" / "tag.py"
    monkeypatch.setattr("sys.argv", [str(job), "--allow-root", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(job), run_name="__main__")
    assert ended.value.code == 2
    assert REFUSED in capsys.readouterr().err


def test_a_plan_of_somebody_else_leads_nowhere(job, tmp_path):
    """The stored plan rules on resume: its files must be those of the listing, which are looked at."""
    from rembert_ray.plan import freeze_plan

    secret = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["my", "secret"]}), secret)
    checked = check(job, tmp_path, f"input.path={secret}")
    freeze_plan(Location(str(tmp_path / "data" / "out")), checked.plan)
    assert any("stored -> now" in fault for fault in faults(job, tmp_path / "data"))
