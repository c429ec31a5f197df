"""The first manifest as YAML: every key of the models is in it, and what was answered is what is read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from rembert_ray.manifest import Manifest, load_manifest
from rembert_ray.manifest_source import parse_yaml
from rembert_ray.starter.template import LINE_WIDTH, as_yaml, manifest_text
from rembert_ray.tasks.base import find_task, task_names

ANSWERS: dict[str, Any] = {
    "task": "tag",
    "model": "models/a b",
    "input": {"path": "corpus/*.parquet", "columns": {"text": "body"}, "keep": ["id", "no"]},
    "output": {"path": "s3://bucket/out"},
}
TASKS = [name for name in task_names() if name != "several"]


def written(folder: Path, text: str) -> str:
    (folder / "x.yaml").write_text(text)
    return str(folder / "x.yaml")


def test_what_was_answered_is_read_back_and_all_else_is_the_default(tmp_path: Path) -> None:
    manifest = load_manifest(written(tmp_path, manifest_text(ANSWERS)))
    assert manifest.input.columns == {"text": "body"}
    assert manifest.input.keep == ("id", "no")
    assert manifest.model == str(tmp_path / "models/a b")
    given_only = {"task": "tag", "model": "m", "input": {"path": "c"}, "output": {"path": "o"}}
    default = Manifest.model_validate(given_only).model_dump()
    sections = set(default) - given_only.keys()
    assert {name: manifest.model_dump()[name] for name in sections} == {name: default[name] for name in sections}


@pytest.mark.parametrize("task", TASKS)
def test_every_comment_that_shows_a_default_can_be_uncommented_and_changes_nothing(task: str, tmp_path: Path) -> None:
    text = manifest_text(ANSWERS | {"task": task, "input": {"path": "c"}})
    before = load_manifest(written(tmp_path, text)).model_dump()
    keys = set(find_task(task).Parameters.model_fields) | set(Manifest.model_fields)
    for field in Manifest.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= set(field.annotation.model_fields)
    shown = re.findall(r"^(?:  )?(?:# )?(\w+): ", text, re.MULTILINE)
    assert keys <= {*shown, *Manifest.model_fields}
    text = re.sub(
        r"^((?:  )?)# (\w+: )", lambda m: m[1] + m[2] if m[2][:-2] in keys else m[0], text, flags=re.MULTILINE
    )
    assert not re.search(r"^(  )?# rows: ", text, re.MULTILINE)
    after = load_manifest(written(tmp_path, text)).model_dump()
    head = find_task(task).Parameters
    assert head.model_validate(after.pop("head")) == head.model_validate(before.pop("head"))
    assert after == before


@pytest.mark.parametrize("task", TASKS)
def test_every_description_is_there_and_lines_are_short(task: str) -> None:
    text = manifest_text(ANSWERS | {"task": task})
    words = " ".join(word for line in text.splitlines() for word in line.split() if word != "#")
    for key, field in find_task(task).Parameters.model_fields.items():
        assert " ".join((field.description or "").split()) in words, key
    assert max(map(len, text.splitlines())) <= LINE_WIDTH + 1


def test_editors_find_the_schema_where_there_is_one() -> None:
    first = manifest_text(ANSWERS, "manifest.schema.json").splitlines()[0]
    assert first == "# yaml-language-server: $schema=manifest.schema.json"
    assert "yaml-language-server" not in manifest_text(ANSWERS)


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"])) | st.none() | st.booleans() | st.integers(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
@example("no")
@example("~")
@example("22:30")
@example("a: b # c")
@example("\x85\u2028\x00'\"\\")
@example("1e3")
def test_any_value_is_read_back_as_itself(value: Any) -> None:
    source = parse_yaml(f"section:\n  key: {as_yaml(value)}   # about it\n", "x")
    assert source.faults == []
    assert source.values == {"section": {"key": value}}
    flow = parse_yaml(f"{{key: [{as_yaml(value)}, 1]}}", "x")
    assert flow.values == {"key": [value, 1]}
