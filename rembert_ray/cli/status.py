"""`rembert-ray status`."""

from __future__ import annotations

from rembert_ray.cli.options import OutputArgument, reported


def status(output: OutputArgument) -> None:
    """Show where a job stands, from its output alone."""
    from rembert_ray.report.verbs import describe_status

    with reported():
        print(describe_status(output))
