"""`rembert-ray plan`."""

from __future__ import annotations

from rembert_ray.cli.options import AllowRootOption, ManifestArgument, SetOption, reported


def plan(manifest: ManifestArgument, overrides: SetOption = None, allow_roots: AllowRootOption = None) -> None:
    """Check a manifest and show the plan of its job; writes nothing, starts nothing."""
    from rembert_ray.check import check_job
    from rembert_ray.manifest import load_manifest
    from rembert_ray.plan import describe
    from rembert_ray.storage.allowed import AllowedRoots

    with reported():
        allowed = AllowedRoots.given(allow_roots or ())
        checked = check_job(load_manifest(manifest, overrides or (), allowed), allowed, for_writing=False)
        print(describe(checked.plan))
        for warning in checked.warnings:
            print(f"warning     {warning}")
