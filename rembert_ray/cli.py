"""The command line, `rembert-ray`. Each verb is a few lines over a function; heavy imports wait for the verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from rembert_ray import __version__
from rembert_ray.errors import RembertRayError, printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Batch inference with multilingual encoders on Ray.",
)

ManifestArgument = Annotated[str, typer.Argument(help="YAML manifest: a path or a URL")]
OutputArgument = Annotated[str, typer.Argument(help="the output of a job: a path or a URL")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="override a key of the manifest; may be repeated")
]

AllowRootOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-root",
        metavar="ROOT",
        help="refuse every place of the manifest that is not below this folder or URL prefix (s3://bucket/prefix, or "
        "s3:// for all buckets); may be repeated. It narrows REMBERT_RAY_ALLOW_ROOTS, which has commas between roots",
    ),
]


@contextmanager
def reported() -> Iterator[None]:
    """Errors of ours end the process with their exit code and a message, not with a traceback."""
    try:
        yield
    except RembertRayError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


@app.command()
def run(manifest: ManifestArgument, overrides: SetOption = None, allow_roots: AllowRootOption = None) -> None:
    """Run a manifest; run again it resumes."""
    from rembert_ray.job import run as run_job

    with reported():
        raise typer.Exit(run_job(manifest, tuple(overrides or ()), allow_roots=allow_roots or ()))


@app.command()
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


@app.command()
def status(output: OutputArgument) -> None:
    """Show where a job stands, from its output alone."""
    from rembert_ray.report.verbs import describe_status

    with reported():
        print(describe_status(output))


@app.command()
def sample(
    output: OutputArgument,
    rows: Annotated[int, typer.Option(help="how many rows")] = 8,
    errors: Annotated[bool, typer.Option("--errors", help="rows with an error instead")] = False,
) -> None:
    """Show a few rows of an output, rendered for a person."""
    from rembert_ray.report.verbs import describe_sample

    with reported():
        for line in describe_sample(output, rows, with_error=errors):
            print(printable(line))


@app.command()
def verify(
    output: OutputArgument,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Read a whole output again and hold it against its plan; exit code 3 and what to do when something is wrong."""
    from rich.console import Console

    from rembert_ray.verify import verify as verify_output

    with reported():
        found = verify_output(output, Console(stderr=True))
        for line in [json.dumps(found.to_dict(), indent=2)] if as_json else found.lines():
            print(line)
        raise typer.Exit(found.exit_code)


@app.command()
def gc(
    output: OutputArgument,
    older_than_s: Annotated[
        float, typer.Option("--older-than", metavar="SECONDS", min=0, help="by the clock of the store")
    ] = 3600,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be removed")] = False,
) -> None:
    """Remove temporary files, probes and abandoned uploads that killed runs and other writers left at an output."""
    from rembert_ray.report.verbs import describe_gc

    with reported():
        for line in describe_gc(output, older_than_s, dry_run=dry_run):
            print(line)


@app.command()
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


@app.command()
def tasks() -> None:
    """List the tasks with what they read, write and take as parameters."""
    from rembert_ray.catalog import describe_tasks

    for line in describe_tasks():
        print(line)


@app.command()
def schema() -> None:
    """Print the JSON schema of a manifest, for editors and checkers."""
    from rembert_ray.catalog import manifest_schema

    print(json.dumps(manifest_schema(), indent=2, ensure_ascii=False))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="a checkpoint folder with pytorch_model.bin or tf_model.h5")],
    target: Annotated[str, typer.Argument(help="the new folder: a path or a URL")],
) -> None:
    """Turn a checkpoint of an older format into a safetensors folder, which is the only kind that jobs read."""
    from rembert_ray.convert.convert import convert as convert_folder

    with reported():
        for line in convert_folder(source, target).lines:
            print(line)


@app.command()
def version() -> None:
    """Show the version."""
    print(__version__)
