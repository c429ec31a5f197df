"""`rembert-ray retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import AllowRootOption, LogOption, LogRowsOption, OutputArgument, SetOption, reported


def retry(
    output: OutputArgument,
    error: Annotated[
        str | None, typer.Option(metavar="TEXT", help="only parts with a row whose error contains this; default: any")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be tried again")] = False,
    overrides: SetOption = None,
    allow_roots: AllowRootOption = None,
    log: LogOption = None,
    log_rows: LogRowsOption = False,
) -> None:
    """Try quarantined shards again, and the rows of finished parts that have an error, by the stored manifest.

    _SUCCESS and the parts that have such rows are deleted, and those parts are made again as a whole; readers see them
    missing until then. Some errors come back always, such as "text is null": choose with --error those that may not.
    --set is for what changes no result, such as resources and limits.
    """
    from rembert_ray.report.narration import Narrator
    from rembert_ray.retry import retry as try_again

    narrator = Narrator.for_stream(log, shows_rows=log_rows)
    options = {"overrides": overrides or (), "allow_roots": allow_roots or ()}
    with reported(narrator=narrator):
        raise typer.Exit(try_again(output, error, dry_run=dry_run, narrator=narrator, **options))
