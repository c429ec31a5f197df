"""Every file below a folder: hidden ones, temporary ones and those of unknown names too.

Listings of inputs are another matter (`listing`): they skip what readers skip. This file reads no content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rembert_ray.errors import StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import explain, retry_transient, storage_errors
from rembert_ray.storage.location import Location


def names_below(folder: Location) -> list[str]:
    """The names of all files below a folder, relative to it (`a/b`), sorted; empty when it does not exist.

    A link to a folder is listed as a name and not followed. Raises `StorageError` when the store refuses or gives out.
    """
    walk = _local if folder.is_local else _s3 if folder.is_s3 else _fsspec
    try:
        return retry_transient(lambda: sorted(walk(folder)), f"listing {folder}")
    except storage_errors() as error:
        raise StorageError(f"cannot list {explain(str(folder), error)}") from error


def _local(folder: Location) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        # A folder that was removed meanwhile holds nothing; one that cannot be read may hold anything.
        if not isinstance(error, FileNotFoundError):
            raise error

    root = Path(folder.path)
    for here, folders, files in os.walk(root, onerror=refuse):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        yield from (str((Path(here) / name).relative_to(root)) for name in files + links)


def _s3(folder: Location) -> Iterator[str]:
    base = folder.path.partition("/")[2].rstrip("/") + "/"
    base = "" if base == "/" else base
    for page in s3.list_pages(f"{folder.path.rstrip('/')}/", is_recursive=True):
        for entry in page.get("Contents", []):
            # Empty keys that end in "/" are the folder markers of web consoles.
            if entry["Size"] or not entry["Key"].endswith("/"):
                yield str(entry["Key"]).removeprefix(base)


def _fsspec(folder: Location) -> Iterator[str]:
    base = folder.path.rstrip("/") + "/"
    folder.filesystem.invalidate_cache()
    return (str(path).removeprefix(base) for path in folder.filesystem.find(folder.path))
