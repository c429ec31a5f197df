"""What files there are: listings with versions, and the input that a path, folder or glob stands for.

A listing goes to the store each time; its order is the order of the URLs, so that the same files always give
the same plan. Hidden names below the listed folder (`.x`, and `_x` unless it is a Hive partition `_x=1`) are
skipped, as Spark and Arrow do.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import (
    RETRY_BUDGET_S,
    error_code,
    explain,
    http_status,
    retry_transient,
    storage_errors,
)
from rembert_ray.storage.location import Location, locate

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
PREFLIGHT_BUDGET_S = 10.0
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class FileInfo:
    """One file of a listing.

    `version` changes when the content does: the ETag of an object, the modification time in nanoseconds of a
    local file, what fsspec offers elsewhere (an empty string where it offers nothing).
    """

    location: Location
    size_bytes: int
    version: str


def list_files(location: Location, recursive: bool = True, *, budget_s: float = RETRY_BUDGET_S) -> list[FileInfo]:
    """The files below a folder, by URL; an empty list when there is nothing.

    Raises PermissionError and FileNotFoundError (no such bucket) as they come, `StorageError` when the store
    does not answer, `UnusableError` for a broken link.
    """
    if location.is_local:
        return sorted(_walk_local(location, Path(location.path), recursive, frozenset()))
    what = f"listing {location}"
    if location.is_s3:
        return sorted(retry_transient(lambda: list(_walk_s3(location, "", recursive)), what, budget_s))
    return sorted(retry_transient(lambda: list(_walk_fsspec(location, recursive)), what, budget_s))


def list_names(folder: Location, prefix: str = "", *, budget_s: float = RETRY_BUDGET_S) -> list[str]:
    """The names of the files directly in `folder` that start with `prefix`, hidden ones too; sorted.

    An empty list when the folder does not exist; a bucket that does not exist is a FileNotFoundError.
    """
    if folder.is_local:
        try:
            with os.scandir(folder.path) as entries:
                return sorted(entry.name for entry in entries if entry.name.startswith(prefix) and not entry.is_dir())
        except FileNotFoundError:
            return []

    def names() -> list[str]:
        if folder.is_s3:
            start = f"{folder.path}/{prefix}"
            pages = s3.list_pages(start, is_recursive=False)
            keys = (entry["Key"] for page in pages for entry in page.get("Contents", []))
            return sorted(key.rpartition("/")[2] for key in keys if not key.endswith("/"))
        found = _find(folder, maxdepth=1)
        return sorted(name for name in (path.rpartition("/")[2] for path in found) if name.startswith(prefix))

    return retry_transient(names, f"listing {folder}", budget_s)


def expand_input(pattern: str, *, budget_s: float = PREFLIGHT_BUDGET_S) -> list[FileInfo]:
    """The Parquet files that `pattern` stands for, by URL: one file, a folder (recursive) or a glob (`*`,
    `?`, `**`).

    Raises `UnusableError` when there is nothing, nothing in Parquet, or when the store refuses, with what to
    do.
    """
    try:
        files = _matching(pattern, budget_s)
    except storage_errors() as error:
        raise UnusableError(_explain_input(pattern, error)) from error
    except StorageError as error:
        # Before anything has started, a store that does not answer is most often a wrong endpoint.
        raise UnusableError(_explain_input(pattern, error.__cause__ or error)) from error
    parquet = [file for file in files if file.location.name.lower().endswith(PARQUET_SUFFIXES)]
    if parquet:
        return parquet
    where = str(locate(pattern))
    if not files:
        what = "no file matches" if _WILDCARD.search(pattern) else "nothing there"
        raise UnusableError(Fault(where, what, "check the spelling; hidden names (`_x`, `.x`) do not count"))
    example = files[0].location.name
    what = f"{len(files)} file(s) there (such as {example!r}), but no Parquet file"
    raise UnusableError(Fault(where, what, "the input must be *.parquet, *.parq or *.pq"))


def input_root(pattern: str) -> Location:
    """The folder below which Hive partitions (`key=value`) count: the folder itself, the part of a glob
    before its first wildcard, or the folder that holds a single file."""
    folder, rest = _split_glob(pattern)
    if rest:
        return folder
    location = locate(pattern)
    return location.parent if location.name.lower().endswith(PARQUET_SUFFIXES) else location


def partition_values(root: Location, location: Location) -> dict[str, str | None]:
    """The Hive partition values between `root` and the file, URL-decoded; the Hive null is None.

    >>> partition_values(Location("/data"), Location("/data/lang=pt%2DBR/part.parquet"))
    {'lang': 'pt-BR'}
    """
    base = root.url.rstrip("/") + "/"
    if not location.url.startswith(base):
        raise ValueError(f"{location} is not below {root}")
    values: dict[str, str | None] = {}
    for folder in location.url.removeprefix(base).split("/")[:-1]:
        key, equals, value = folder.partition("=")
        if equals and key:
            values[unquote(key)] = None if value == HIVE_NULL else unquote(value)
    return values


def _matching(pattern: str, budget_s: float) -> list[FileInfo]:
    folder, rest = _split_glob(pattern)
    if rest and (matching := _glob(folder, rest, budget_s)):
        return matching
    # No glob, or names with brackets.
    location = locate(pattern)
    single = file_info(location, budget_s)
    return [single] if single is not None else list_files(location, budget_s=budget_s)


def _glob(folder: Location, rest: str, budget_s: float) -> list[FileInfo]:
    base = folder.url.rstrip("/") + "/"
    if folder.is_s3:
        literal = _WILDCARD.split(rest, maxsplit=1)[0]
        found = retry_transient(lambda: sorted(_walk_s3(folder, literal, True)), f"listing {folder}", budget_s)
    else:
        found = list_files(folder, budget_s=budget_s)
    wanted = rest.split("/")
    return [file for file in found if _glob_matches(wanted, file.location.url.removeprefix(base).split("/"))]


def _split_glob(pattern: str) -> tuple[Location, str]:
    """The folder before the first wildcard and the rest (empty for a pattern without wildcards).

    A local path that exists as it stands is no glob, whatever brackets are in its name.
    """
    wildcard = _WILDCARD.search(pattern)
    if wildcard is None:
        return locate(pattern), ""
    locate(pattern)
    if "://" not in pattern and Path(pattern).expanduser().exists():
        return locate(pattern), ""
    cut = pattern.rfind("/", 0, wildcard.start())
    folder = pattern[:cut] if cut > 0 else ("/" if cut == 0 else ".")
    return locate(folder), pattern[cut + 1 :]


def _glob_matches(wanted: list[str], parts: list[str]) -> bool:
    if not wanted or not parts:
        return wanted == parts
    if wanted[0] == "**":
        return any(_glob_matches(wanted[1:], parts[skip:]) for skip in range(len(parts)))
    return fnmatch.fnmatchcase(parts[0], wanted[0]) and _glob_matches(wanted[1:], parts[1:])


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def file_info(location: Location, budget_s: float = RETRY_BUDGET_S) -> FileInfo | None:
    """The file itself, None when there is none of exactly this name (a folder, or nothing).

    Raises PermissionError as it comes, `StorageError` when the store does not answer.
    """
    if location.is_local:
        path = Path(location.path)
        return _local_info(location, path.stat()) if path.is_file() else None

    def look() -> FileInfo | None:
        try:
            if location.is_s3:
                if "/" not in location.path:
                    return None
                head = s3.head(location.path)
                return FileInfo(location, int(head["ContentLength"]), head["ETag"].strip('"'))
            info = location.filesystem.info(location.path)
        except FileNotFoundError:
            return None
        return _fsspec_info(location, info) if info["type"] == "file" else None

    return retry_transient(look, f"looking for {location}", budget_s)


def _local_info(location: Location, stat: os.stat_result) -> FileInfo:
    return FileInfo(location, stat.st_size, str(stat.st_mtime_ns))


def _fsspec_info(location: Location, info: dict[str, Any]) -> FileInfo:
    stamps = (info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "last_modified", "updated", "created"))
    return FileInfo(location, int(info["size"]), next((str(stamp) for stamp in stamps if stamp is not None), ""))


def _walk_local(root: Location, folder: Path, recursive: bool, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return
    if not folder.is_dir() or (status.st_dev, status.st_ino) in above:
        return
    above = above | {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            location = Location(str(folder / entry.name))
            if not location.url.isprintable() and not _is_utf8(location.url):
                raise UnusableError(Fault(repr(location.url), "a name that is not UTF-8", "rename it"))
            if entry.is_dir():
                if recursive:
                    yield from _walk_local(root, folder / entry.name, recursive, above)
            elif entry.is_symlink() and not Path(entry.path).exists():
                raise UnusableError(Fault(str(location), "a link to nothing", "restore its target or remove it"))
            else:
                yield _local_info(location, entry.stat())


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk_s3(folder: Location, literal: str, recursive: bool) -> Iterator[FileInfo]:
    base = folder.path.rstrip("/") + "/"
    bucket = base.partition("/")[0]
    for page in s3.list_pages(base + literal, is_recursive=recursive):
        for entry in page.get("Contents", []):
            path = f"{bucket}/{entry['Key']}"
            below = path.removeprefix(base).split("/")
            # Keys that end in "/" are the folder markers of web consoles.
            if below[-1] and not any(_is_hidden(part) for part in below):
                yield FileInfo(Location(f"s3://{path}"), int(entry["Size"]), entry["ETag"].strip('"'))


def _find(folder: Location, maxdepth: int | None) -> dict[str, dict[str, Any]]:
    filesystem = folder.filesystem
    filesystem.invalidate_cache()
    found: dict[str, dict[str, Any]] = filesystem.find(folder.path, maxdepth=maxdepth, detail=True)
    return found


def _walk_fsspec(folder: Location, recursive: bool) -> Iterator[FileInfo]:
    base = folder.path.rstrip("/") + "/"
    for path, info in _find(folder, None if recursive else 1).items():
        below = path.removeprefix(base)
        if path.startswith(base) and not any(_is_hidden(part) for part in below.split("/")):
            yield _fsspec_info(folder.child(below), info)


def _explain_input(pattern: str, error: BaseException) -> Fault:
    location, _ = _split_glob(pattern)
    if location.is_s3 and http_status(error) == 403 and error_code(error).isdigit():
        # A HEAD reply has no body that could say why; a listing has.
        try:
            next(s3.list_pages(location.path, is_recursive=False))
        except storage_errors() as said:
            error = said
    return explain(str(location), error)
