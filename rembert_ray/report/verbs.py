"""What `rembert-ray gc` prints, from an output alone: no Ray, no torch, no model."""

from __future__ import annotations

from collections.abc import Iterator

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.gc import STALE_AFTER_S, remove_files, remove_uploads
from rembert_ray.storage.lease import lease_holder
from rembert_ray.storage.location import locate


def describe_gc(output: str, older_than_s: float, *, dry_run: bool) -> Iterator[str]:
    """Remove what killed runs and other writers left behind, older than so many seconds; what it was, as lines.

    Raises:
        UnusableError: a run is going on, and its own files could be among what is so young.
    """
    location = locate(output)
    if older_than_s < STALE_AFTER_S and (holder := lease_holder(location)):
        what = f"{holder} writes here; files younger than {STALE_AFTER_S:.0f} s may be its own"
        raise UnusableError(Fault("--older-than", what, "wait for its end, or leave the option out"))
    verb = "would remove" if dry_run else "removed"
    n_found = 0
    for remove in (remove_files, remove_uploads):
        for leftover in remove(location, older_than_s, dry_run=dry_run):
            n_found += 1
            yield f"{verb:<13}{leftover}"
    if not n_found:
        yield f"nothing older than {older_than_s:.0f} s is left over"
