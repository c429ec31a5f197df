"""`rembert-ray validate`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from rembert_ray.cli.options import SetOption, reported
from rembert_ray.errors import UnusableError, printable


def validate(
    manifests: Annotated[list[str], typer.Argument(help="YAML manifests: paths or URLs", metavar="MANIFEST")],
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON: each manifest with its faults")] = False,
) -> None:
    """Check what manifests alone can tell: YAML, keys, values, the task and its parameters. Exit code 0 or 2.

    It looks at no model, corpus or output: `plan` does.
    """
    from rembert_ray.report.fault_frames import place_faults, print_error
    from rembert_ray.task_check import check_manifest

    found = []
    for name in manifests:
        error = None
        with reported(name, framed=True):
            try:
                task = check_manifest(name, overrides or ()).task
            except UnusableError as unusable:
                error = unusable
        faults = [item.to_dict() for item in place_faults(error.faults, [name])] if error else []
        found.append({"manifest": name, "valid": error is None, "faults": faults})
        if as_json:
            continue
        if error is not None:
            print_error(error, [name], framed=True)
        else:
            command = f"rembert-ray plan {shlex.quote(name)}"
            print(printable(f"{name}: valid (task {task}; `{command}` looks at the model and the corpus)"))
    if as_json:
        import json

        print(json.dumps(found, indent=2))
    raise typer.Exit(0 if all(item["valid"] for item in found) else UnusableError.exit_code)
