"""`rembert-ray run`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import AllowRootOption, LogOption, LogRowsOption, ManifestArgument, SetOption, reported


def run(
    manifest: ManifestArgument,
    overrides: SetOption = None,
    allow_roots: AllowRootOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="ROWS",
            help="stop with exit code 75 once so many rows are committed, as whole shards; a run without it goes on",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="check, plan, and show what becomes of eight rows; no Ray, nothing written"),
    ] = False,
    log: LogOption = None,
    log_rows: LogRowsOption = False,
) -> None:
    """Run a manifest; run again it resumes."""
    from rembert_ray.report.narration import Narrator

    narrator = Narrator.for_stream(log, shows_rows=log_rows)
    with reported(manifest, narrator=narrator):
        if dry_run:
            from rembert_ray.trial import dry_run as try_job

            raise typer.Exit(try_job(manifest, overrides or (), allow_roots or ()))
        from rembert_ray.job import run as run_job

        raise typer.Exit(run_job(manifest, tuple(overrides or ()), narrator, allow_roots or (), limit))
