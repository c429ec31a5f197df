"""`rembert-ray convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from rembert_ray.cli.options import reported


def convert(
    source: Annotated[str, typer.Argument(help="a checkpoint folder with pytorch_model.bin or tf_model.h5")],
    target: Annotated[str, typer.Argument(help="the new folder: a path or a URL")],
) -> None:
    """Turn a checkpoint of an older format into a safetensors folder, which is the only kind that jobs read."""
    from rembert_ray.convert.convert import convert as convert_folder

    with reported():
        for line in convert_folder(source, target).lines:
            print(line)
