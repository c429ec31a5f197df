"""`rembert-ray evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rembert_ray.cli.options import OutputArgument, reported


def evaluate(
    output: OutputArgument,
    labels: Annotated[str, typer.Option(metavar="COLUMN", help="a column of input.keep that holds the right results")],
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="measure its groups, too: a kept column")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, with each label's scores")] = False,
) -> None:
    """Measure an output against labels that the job kept: accuracy, F1, exact match, as the task has it."""
    from rembert_ray.evaluation.evaluate import evaluate as evaluate_output

    with reported():
        found = evaluate_output(output, labels, by)
        for line in [json.dumps(found.to_dict(), indent=2, ensure_ascii=False)] if as_json else found.lines():
            print(line)
