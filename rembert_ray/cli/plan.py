"""`rembert-ray plan`."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from rembert_ray.cli.options import AllowRootOption, ManifestArgument, SetOption, reported


def plan(
    manifest: ManifestArgument,
    overrides: SetOption = None,
    allow_roots: AllowRootOption = None,
    tokens_per_s: Annotated[
        float | None, typer.Option(min=1e-9, metavar="N", help="speed of one actor, to tell time and cost")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="OUTPUT", help="take the speed that the last run of this output has measured")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="default: resources.actors of the manifest, 1 where that is auto")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="of one actor, in any currency")
    ] = None,
    sample: Annotated[bool, typer.Option(help="read and tokenize some rows, for at most 20 seconds")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="the same for a program")] = False,
) -> None:
    """Check a manifest and show the plan of its job, its tokens, time and cost; writes nothing, starts nothing.

    Of an output that has parts already, the estimate is of what is left.
    """
    from rembert_ray.check import check_job
    from rembert_ray.manifest import load_manifest
    from rembert_ray.plan import describe
    from rembert_ray.report.estimate import Hardware, estimate_job
    from rembert_ray.report.plan_view import describe_estimate
    from rembert_ray.report.speed import find_speed
    from rembert_ray.storage.allowed import AllowedRoots

    with reported(manifest, framed=True):
        allowed = AllowedRoots.given(allow_roots or ())
        checked = check_job(load_manifest(manifest, overrides or (), allowed), allowed, for_writing=False)
        in_manifest = checked.manifest.resources.actors
        n_actors = actors or (1 if in_manifest == "auto" else in_manifest)
        hardware = Hardware(n_actors, find_speed(checked, tokens_per_s, like), price_per_hour)
        estimate = estimate_job(checked, hardware, with_sample=sample)
        if as_json:
            print(json.dumps(estimate.to_dict() | {"warnings": checked.warnings}))
            return
        print(describe(checked.plan))
        for line in describe_estimate(estimate):
            print(line)
        for warning in checked.warnings:
            print(f"warning     {warning}")
        print(f"next        rembert-ray run {shlex.quote(manifest)}")
