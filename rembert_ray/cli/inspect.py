"""`rembert-ray inspect`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rembert_ray.cli.options import reported
from rembert_ray.errors import UnusableError


def inspect(
    checkpoint: Annotated[str, typer.Argument(help="the folder of a model: a path or a URL")],
    task: Annotated[str | None, typer.Option(help="whether it can drive this task")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Show what a checkpoint is: family, head, tasks, labels, sizes, tokenizer, missing names. Exit code 0 or 2."""
    from rembert_ray.report.inspection import inspect_checkpoint

    with reported():
        found = inspect_checkpoint(checkpoint, task)
        for line in [json.dumps(found.to_dict(), indent=2)] if as_json else found.lines():
            print(line)
        if found.faults and as_json:
            raise typer.Exit(UnusableError.exit_code)
        if found.faults:
            raise UnusableError(found.faults)
