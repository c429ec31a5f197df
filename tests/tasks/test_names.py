"""A manifest names a task by its file in `rembert_ray/tasks`, and can import nothing else by any spelling."""

from __future__ import annotations

import sys

import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.tasks.base import Task, find_task, task_names


@pytest.mark.parametrize(
    "name",
    [
        "base",
        "__init__",
        "__main__",
        "os",
        "antigravity",
        "tag.os",
        ".tag",
        "..check",
        "../tag",
        "tag/../tag",
        "Tag",
        "TAG",
    ]
    + ["tag ", "tag\n", "tag\0", "", "x" * 10**6, "rembert_ray.tasks.tag", "__pycache__"],
)
def test_nothing_but_tasks_can_be_named(name):
    before = set(sys.modules)
    with pytest.raises(UnusableError, match="unknown task"):
        find_task(name)
    assert set(sys.modules) == before


def test_every_name_is_a_task():
    assert "tag" in task_names()
    for name in task_names():
        assert issubclass(find_task(name), Task)
