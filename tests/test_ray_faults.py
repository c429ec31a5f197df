"""Ray versions and variables that let Parquet files run code are refused before anything is read."""

from __future__ import annotations

from importlib import metadata

import pytest

from rembert_ray import ray_faults
from rembert_ray.check import check_job
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from tests.conftest import write_manifest


def test_the_installed_ray_is_fine():
    assert ray_faults.ray_faults() == []


@pytest.mark.parametrize(
    ("installed", "is_refused"),
    [("2.59.1", True), ("1.99.0", True), ("2.60.0", False), ("2.60.0rc1", False), ("3.0", False)],
)
def test_old_ray_is_refused(monkeypatch, installed, is_refused):
    monkeypatch.setattr(ray_faults, "version", lambda name: installed)
    found = [str(fault) for fault in ray_faults.ray_faults()]
    assert (
        found
        == [
            f"ray: Ray {installed} runs code that it finds in Parquet files "
            "(install 2.60 or later, here and on all nodes of the cluster)"
        ]
        * is_refused
    )


def test_no_ray_is_no_fault_of_a_plan(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(ray_faults, "version", missing)
    assert ray_faults.ray_faults() == []


@pytest.mark.parametrize("value", ["1", "0", ""])
def test_autoload_is_refused_by_name_with_all_other_faults(monkeypatch, tmp_path, value):
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", value)
    manifest = write_manifest(tmp_path, "task: tag\nmodel: none\ninput: {path: none}\noutput: {path: out}\n")
    with pytest.raises(UnusableError) as error:
        check_job(load_manifest(manifest), for_writing=False)
    lines = error.value.lines
    assert lines[0].startswith("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE: lets Ray run code")
    assert len(lines) > 2
