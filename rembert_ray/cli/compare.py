"""`rembert-ray compare`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from rembert_ray.cli.options import reported


def compare(
    old: Annotated[str, typer.Argument(help="an output, such as last night's: a path or a URL")],
    new: Annotated[str, typer.Argument(help="another output of the same task")],
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="match rows by this kept column; default: by place, or by id, doc_id, url"),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, max=1000, help="how many changed rows to show")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Show what changed between two outputs: their jobs, and the rows whose result did; exit code 0 all the same."""
    from rich.console import Console

    from rembert_ray.comparison.compare import compare as compare_outputs
    from rembert_ray.comparison.view import draw_changes, plain_changes

    console = Console()
    with reported():
        found = compare_outputs(old, new, key, rows)
        if as_json:
            print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
            return
        for line in found.lines():
            print(line)
        if console.is_terminal:
            console.print()
            for drawn in draw_changes(found):
                console.print(drawn)
        else:
            for line in plain_changes(found):
                print(line)
