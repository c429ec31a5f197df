"""`rembert-ray gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported


def gc(
    output: OutputArgument,
    older_than_s: Annotated[
        float, typer.Option("--older-than", metavar="SECONDS", min=0, help="by the clock of the store")
    ] = 3600,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be removed")] = False,
) -> None:
    """Remove temporary files, probes and abandoned uploads that killed runs and other writers left at an output."""
    from rembert_ray.report.verbs import describe_gc

    with reported():
        for line in describe_gc(output, older_than_s, dry_run=dry_run):
            print(line)
