"""A place in storage: from the URL that a person writes to a filesystem, its files, and their versions.

A `Location` is its normalized URL and nothing else, so it pickles, prints and compares as one. It never holds
credentials, endpoints or options: those come from the environment (see `filesystem`). Listings are never
cached, because resume must see the truth. This file writes nothing.
"""

from __future__ import annotations

import contextlib
import os.path
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import (
    LOCAL_SCHEMES,
    S3_SCHEMES,
    check_scheme,
    filesystem_for,
    retry_transient,
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)")
_USE_ENVIRONMENT = "use the environment: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION"


@dataclass(frozen=True, order=True)
class Location:
    """A file or folder by its normalized URL (local ones as a plain absolute path). Make it with `locate`."""

    url: str

    @property
    def scheme(self) -> str:
        """`file` for local paths, else what stands before `://`."""
        return self.url.split("://", 1)[0] if "://" in self.url and not self.url.startswith("/") else "file"

    @property
    def is_local(self) -> bool:
        """Whether the path can be opened by the operating system."""
        return self.url.startswith("/")

    @property
    def is_s3(self) -> bool:
        """Whether the store speaks S3."""
        return self.url.startswith("s3://")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem, shared by the whole process."""
        return filesystem_for(self.scheme)

    @property
    def path(self) -> str:
        """The path inside the filesystem: `/data/x`, or `bucket/key`."""
        if self.is_local:
            return self.url
        if self.is_s3:
            return self.url.removeprefix("s3://")
        return str(self.filesystem._strip_protocol(self.url))

    @property
    def name(self) -> str:
        """The last component."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds it; the root or the bucket is its own parent."""
        head, _, _ = self.url.rpartition("/")
        if self.is_local:
            return Location(head or "/")
        return self if head.endswith("/") or "://" not in head else Location(head)

    def child(self, *names: str) -> Location:
        """The location below this one; each name is one component or several joined by `/`."""
        parts = [part for name in names for part in name.split("/")]
        if any(part in {"", ".", ".."} for part in parts):
            raise ValueError(f"not a name below {self.url}: {'/'.join(names)!r}")
        return Location("/".join([self.url.rstrip("/"), *parts]))

    def __str__(self) -> str:
        return self.url


Place = str | Path | Location


def as_location(place: Place) -> Location:
    """A path, a URL or a `Location` as a `Location`. Raises `UnusableError` for what is none of them."""
    return place if isinstance(place, Location) else locate(str(place))


def locate(url_or_path: str) -> Location:
    """The `Location` of a local path (`~` allowed) or of a URL of any scheme that fsspec knows.

    Raises `UnusableError` for chains (`a::b`), for credentials or options inside a URL, and for a scheme that
    is unknown or has no package installed. Touches no network.
    """
    text = str(url_or_path)
    if not text.strip():
        raise UnusableError(Fault(repr(text), "an empty path"))
    match = _SCHEME.match(text)
    if "::" in text and (match or _SCHEME.search(text)):
        raise UnusableError(
            Fault(_without_secrets(text), "chained URLs (`::`) are not supported", "give one plain URL")
        )
    if match is None or not match[2]:
        return Location(_absolute(text))
    scheme = match[1].lower()
    if scheme in LOCAL_SCHEMES:
        return _locate_file_url(text)
    shown = _without_secrets(text)
    if len(match[2]) < 2:
        raise UnusableError(Fault(shown, "not a URL", f"write {scheme}://..."))
    check_scheme(scheme, shown)
    _refuse_options(text, shown)
    rest = text[match.end() :].strip("/")
    if scheme in S3_SCHEMES:
        scheme = "s3"
        if not rest or match[2] != "//":
            raise UnusableError(Fault(shown, "no bucket", "write s3://BUCKET/PATH"))
    return Location(f"{scheme}://{rest}")


def _absolute(path: str) -> str:
    # Path.resolve would follow links and print another path than the one given.
    return os.path.normpath(Path(path).expanduser().absolute())


def _locate_file_url(url: str) -> Location:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise UnusableError(Fault(url, f"a file URL with the host {parts.netloc!r}", "write file:///ABSOLUTE/PATH"))
    return Location(_absolute(unquote(url.split(":", 1)[1].removeprefix("//").removeprefix("localhost"))))


def _without_secrets(url: str) -> str:
    return re.sub(r"\?[\w.-]+=.*", "?...", re.sub(r"://[^/]*@", "://...@", url))


def _refuse_options(url: str, shown: str) -> None:
    authority = url.split("://", 1)[1].split("/", 1)[0]
    # abfs://container@account is a name; abfs://user:word@account is not.
    if "@" in authority and (not url.startswith(("abfs", "az")) or ":" in authority.split("@")[0]):
        raise UnusableError(Fault(shown, "credentials inside a URL", _USE_ENVIRONMENT))
    # A `?` alone may be part of a glob; `?name=` is an option (or a signature).
    if re.search(r"\?[\w.-]+=", url):
        raise UnusableError(Fault(shown, "options inside a URL", _USE_ENVIRONMENT))


def exists(location: Location) -> bool:
    """Whether there is a file, or a folder with something in it.

    Raises PermissionError as it comes, `StorageError` when the store does not answer.
    """
    if location.is_local:
        return Path(location.path).exists()

    def look() -> bool:
        if location.is_s3:
            return s3.exists(location.path)
        return bool(location.filesystem.exists(location.path))

    return retry_transient(look, f"looking for {location}")


def read_bytes(location: Location) -> bytes:
    """The whole content of a file that fits in memory.

    Raises FileNotFoundError or PermissionError as they come, `StorageError` when the store does not answer.
    """
    if location.is_local:
        return Path(location.path).read_bytes()

    def read() -> bytes:
        if location.is_s3:
            return s3.read(location.path)
        return bytes(location.filesystem.cat_file(location.path))

    return retry_transient(read, f"reading {location}")


def delete(location: Location) -> None:
    """Delete one file; nothing happens when there is none."""
    if location.is_s3:
        retry_transient(lambda: s3.delete(location.path), f"deleting {location}")
        return
    # The file may be gone already: two runs may clean up after the same dead one.
    with contextlib.suppress(FileNotFoundError):
        location.filesystem.rm_file(location.path)
