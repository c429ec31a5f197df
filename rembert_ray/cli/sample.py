"""`rembert-ray sample`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="COLUMN=VALUE", help="only rows with this value, such as label=de; may be repeated"
    ),
]


def sample(
    output: OutputArgument,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="how many rows")] = 8,
    errors: Annotated[bool, typer.Option("--errors", help="rows with an error instead")] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="draw other rows, the same ones for the same number; default: spread evenly"),
    ] = None,
    where: WhereOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object a line, with each row's source")] = False,
) -> None:
    """Show a few rows of an output, rendered for a person: entities in the text, labels with bars."""
    from rich.console import Console

    from rembert_ray.plan import require_plan
    from rembert_ray.report.sample_view import json_of, line_of, task_of, with_inputs
    from rembert_ray.report.samples import parse_where, sample_rows
    from rembert_ray.report.shown_terminal import draw_samples
    from rembert_ray.storage.location import locate

    console = Console()
    with reported():
        plan = require_plan(output)
        task = task_of(plan)
        found = sample_rows(locate(output), plan, rows, with_error=errors, seed=seed, where=parse_where(where or ()))
        if not found:
            print(f"no such row in {output}", file=sys.stderr)
        if as_json:
            for one in with_inputs(found, plan, task):
                print(json.dumps(json_of(one), ensure_ascii=False))
        elif console.is_terminal:
            for line in draw_samples(with_inputs(found, plan, task), plan, task):
                console.print(line)
        else:
            for one in found:
                print(line_of(one, plan, task))
