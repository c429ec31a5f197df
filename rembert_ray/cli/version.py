"""`rembert-ray version`."""

from __future__ import annotations

from rembert_ray import __version__


def version() -> None:
    """Show the version."""
    print(__version__)
