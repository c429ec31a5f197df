"""`rembert-ray status`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported
from rembert_ray.errors import printable


def status(
    output: OutputArgument,
    watch: Annotated[bool, typer.Option("--watch", help="until the run that is going on ends")] = False,
    every_s: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.1, help="with --watch")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="one look, for a program")] = False,
) -> None:
    """Show where a job stands, from its output alone, also while it runs.

    Exit codes: 0 the output is complete; 75 a run is going on, or the same command resumes; 3 the last run ended with
    quarantined shards, refused files or too many errors. With --watch: that of the run.
    """
    from rich.console import Console

    from rembert_ray.report import watch as watching

    with reported():
        if watch and not as_json:
            raise typer.Exit(watching.watch(output, Console(), every_s))
        standing = watching.look_at(output)
        if as_json:
            print(json.dumps(standing.to_dict()))
        else:
            for line in standing.lines():
                print(printable(line))
        raise typer.Exit(standing.exit_code)
