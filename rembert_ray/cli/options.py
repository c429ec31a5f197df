"""What the verbs share: arguments, options, and how errors end the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rembert_ray.errors import RembertRayError

if TYPE_CHECKING:
    from rembert_ray.report.narration import Narrator

Style = Literal["words", "keyvalue", "json"]

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

LogOption = Annotated[
    Style | None,
    typer.Option(
        "--log",
        help="words for a person; keyvalue or json for logs, an event a line. Default: words at a terminal, else "
        "keyvalue",
    ),
]
LogRowsOption = Annotated[
    bool, typer.Option("--log-rows", help="tell a few rows of the result at the end, as is done at a terminal")
]


@contextmanager
def reported(*manifests: str, framed: bool | None = None, narrator: Narrator | None = None) -> Iterator[None]:
    """Errors of ours end the process with their exit code and a message, not with a traceback.

    `manifests` are those that the person named, whose lines may be shown. `framed` False is a line for each fault, as
    in logs; None (the default) is that unless stderr is a terminal. A `narrator` that tells events tells them.
    """
    try:
        yield
    except RembertRayError as error:
        from rembert_ray.report.fault_frames import print_error

        if narrator is not None and narrator.style != "words":
            narrator.tell_error(error)
        else:
            print_error(error, manifests, framed=framed)
        raise typer.Exit(error.exit_code) from error
