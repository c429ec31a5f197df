"""`rembert-ray sample`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported
from rembert_ray.errors import printable


def sample(
    output: OutputArgument,
    rows: Annotated[int, typer.Option(help="how many rows")] = 8,
    errors: Annotated[bool, typer.Option("--errors", help="rows with an error instead")] = False,
) -> None:
    """Show a few rows of an output, rendered for a person."""
    from rembert_ray.report.verbs import describe_sample

    with reported():
        for line in describe_sample(output, rows, with_error=errors):
            print(printable(line))
