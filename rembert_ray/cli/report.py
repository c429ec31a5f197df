"""`rembert-ray report`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported


def report(
    output: OutputArgument,
    against: Annotated[
        str | None, typer.Option("--against", metavar="OUTPUT", help="an earlier output, to look for drift")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record as JSON")] = False,
) -> None:
    """Make the page and the record of an output anew, beside it: what came out, how fast, what failed, what moved."""
    from rembert_ray.report.closing import describe_report, report_on

    with reported():
        record = report_on(output, against)
        for line in [record.model_dump_json(indent=2)] if as_json else describe_report(record):
            print(line)
