"""`rembert-ray run`."""

from __future__ import annotations

import typer

from rembert_ray.cli.options import AllowRootOption, ManifestArgument, SetOption, reported


def run(manifest: ManifestArgument, overrides: SetOption = None, allow_roots: AllowRootOption = None) -> None:
    """Run a manifest; run again it resumes."""
    from rembert_ray.job import run as run_job

    with reported():
        raise typer.Exit(run_job(manifest, tuple(overrides or ()), allow_roots=allow_roots or ()))
