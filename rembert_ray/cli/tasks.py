"""`rembert-ray tasks`."""

from __future__ import annotations


def tasks() -> None:
    """List the tasks with what they read, write and take as parameters."""
    from rembert_ray.catalog import describe_tasks

    for line in describe_tasks():
        print(line)
