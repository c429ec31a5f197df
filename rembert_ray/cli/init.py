"""`rembert-ray init`."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from rembert_ray.cli.options import reported
from rembert_ray.errors import printable


def init(
    file: Annotated[str, typer.Argument(help="the manifest to write")] = "manifest.yaml",
    corpus: Annotated[str | None, typer.Option(help="Parquet file, folder or glob; local or URL")] = None,
    model: Annotated[str | None, typer.Option(help="folder or URL of a checkpoint")] = None,
    output: Annotated[str | None, typer.Option(help="where the result shall go: folder or URL")] = None,
    task: Annotated[str | None, typer.Option(help="default: the one that the checkpoint was made for")] = None,
    text_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--text-column",
            metavar="[NAME=]COLUMN",
            help="what the task reads: the column of its text, or question=COLUMN for a task of several; repeatable",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="a column to copy to the output; repeatable; - for none; default: ids, language and such",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file if there is one")] = False,
) -> None:
    """Write a first manifest, commented, by looking at a corpus and a checkpoint; asks for what is not given."""
    from rembert_ray.report.fault_frames import print_error
    from rembert_ray.starter import first_manifest as first
    from rembert_ray.starter.questions import draft_by_asking

    with reported(framed=True):
        location = first.check_free(file, is_forced=force)
        columns = dict(_named(text) for text in text_columns or [])
        answers = first.Answers(corpus, model, output, task, columns, [] if keep == ["-"] else keep)
        if sys.stdin.isatty():
            draft = draft_by_asking(answers, _ask, lambda error: print_error(error, framed=True))
        else:
            draft = first.draft_from(answers)
        first.write_manifest(draft, location, is_forced=force)
        for line in first.describe_draft(draft):
            print(printable(line))
        print(printable(f"wrote       {file}"))
    with reported(file, framed=True):
        plan = first.check_written(file).plan
        print(f"checked     {plan.n_rows:,} rows, {plan.n_shards:,} shard{'s' * (plan.n_shards != 1)}")
        print(printable(f"next        rembert-ray plan {shlex.quote(file)}"))


def _ask(question: str, proposal: str) -> str:
    return str(typer.prompt(printable(question), default=proposal or None))


def _named(text: str) -> tuple[str, str]:
    """`question=q` -> ("question", "q"); without a name, the task's first column."""
    name, _, column = text.rpartition("=")
    return name, column
