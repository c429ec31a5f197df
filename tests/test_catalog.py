"""What `rembert-ray tasks` and `schema` print, checked with an independent validator against the shipped manifests."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from rembert_ray.catalog import describe_tasks, manifest_schema
from rembert_ray.cli import app
from rembert_ray.tasks.base import find_task, task_names

REPOSITORY = Path(__file__).parent.parent
MANIFESTS = sorted((REPOSITORY / "manifests").glob("*.yaml"))
SCHEMA_FILE = REPOSITORY / "manifests" / "manifest.schema.json"
MINIMAL = {"task": "tag", "model": "m", "input": {"path": "in"}, "output": {"path": "out"}}


def faults(manifest):
    checker = jsonschema.Draft202012Validator(manifest_schema())
    return [error.message for error in checker.iter_errors(manifest)]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_fits_the_schema_and_names_it(path):
    assert faults(YAML(typ="safe").load(path.read_text())) == []
    assert path.read_text().startswith("# yaml-language-server: $schema=manifest.schema.json\n")


def test_the_schema_beside_the_manifests_is_this_one():
    made_by = "rembert-ray schema > manifests/manifest.schema.json"
    assert json.loads(SCHEMA_FILE.read_text()) == manifest_schema(), made_by


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


@pytest.mark.parametrize(
    "change",
    [
        {"task": "tagg"},
        {"modle": "m"},
        {"head": {"agregation": "first"}},
        {"head": {"aggregation": "frist"}},
        {"text": {"overlap": -1}},
        {"sharding": {"bytes": "64 parsecs"}},
        {"resources": {"actors": "many"}},
        {"input": None},
    ],
    ids=str,
)
def test_planted_mistakes_are_found(change):
    assert faults(MINIMAL) == []
    assert faults(MINIMAL | change)


@pytest.mark.parametrize("change", [{"head": None}, {"text": None}, {"sharding": {"bytes": "64 MiB"}}], ids=str)
def test_what_the_loader_takes_fits_too(change):
    assert faults(MINIMAL | change) == []


def test_tasks_lists_every_task_with_every_parameter():
    text = "\n".join(describe_tasks())
    for name in task_names():
        assert f"\n{name}: " in f"\n{text}"
        for key, field in find_task(name).Parameters.model_fields.items():
            assert f"    {key}: " in text
            assert field.description, f"{name}.{key} has no description"


def test_the_verbs_print_them():
    assert json.loads(CliRunner().invoke(app, ["schema"]).output) == manifest_schema()
    assert CliRunner().invoke(app, ["tasks"]).output.splitlines() == list(describe_tasks())


def test_tasks_are_listed_for_programs():
    found = json.loads(CliRunner().invoke(app, ["tasks", "--json"]).stdout)
    assert [task["name"] for task in found] == task_names()
    tag = next(task for task in found if task["name"] == "tag")
    assert tag["reads"] == [["text"], ["words"]]
    assert list(tag["writes"]) == ["entities", "n_tokens", "n_windows", "truncated", "error"]
    assert tag["head"]["properties"]["aggregation"]["default"] == "simple"
