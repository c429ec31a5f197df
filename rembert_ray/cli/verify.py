"""`rembert-ray verify`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported


def verify(
    output: OutputArgument,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Read a whole output again and hold it against its plan; exit code 3 and what to do when something is wrong."""
    from rich.console import Console

    from rembert_ray.verify import verify as verify_output

    with reported():
        found = verify_output(output, Console(stderr=True))
        for line in [json.dumps(found.to_dict(), indent=2)] if as_json else found.lines():
            print(line)
        raise typer.Exit(found.exit_code)
