"""`rembert-ray tasks`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def tasks(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """List the tasks with what they read, write and take as parameters."""
    from rembert_ray.catalog import describe_tasks, list_tasks

    for line in [json.dumps(list_tasks(), indent=2)] if as_json else describe_tasks():
        print(line)
