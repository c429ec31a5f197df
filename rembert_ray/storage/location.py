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
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import (
    LOCAL_SCHEMES,
    RETRY_BUDGET_S,
    S3_SCHEMES,
    check_scheme,
    filesystem_for,
    retry_transient,
)

LONGEST_URL = 4096
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
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
    """The `Location` of a local path (`~` and `..` allowed) or of a URL of any scheme that fsspec knows.

    Raises `UnusableError` for chains (`a::b`), for credentials, options, fragments, backslashes or `..` (however it is
    encoded) inside a URL, for control characters, and for a scheme that is unknown or has no package installed. Touches
    no network.
    """
    text = str(url_or_path)
    shown = _without_secrets(text)
    if not text.strip():
        raise UnusableError(Fault(repr(text), "an empty path"))
    if len(text) > LONGEST_URL:
        what = f"{len(text):,} characters, more than a path or URL may have ({LONGEST_URL:,})"
        raise UnusableError(Fault(shown[:80] + "...", what, "check what was meant"))
    if _CONTROL.search(text):
        raise UnusableError(Fault(repr(shown), "a control character in a path or URL", "remove it"))
    match = _SCHEME.match(text)
    if "::" in text and (match or _SCHEME.search(text)):
        raise UnusableError(Fault(shown, "chained URLs (`::`) are not supported", "give one plain URL"))
    if match is None or not match[2]:
        return Location(_absolute(text))
    scheme = match[1].lower()
    if scheme in LOCAL_SCHEMES:
        _refuse_tricks(text, shown)
        return _locate_file_url(text, shown)
    if len(match[2]) < 2:
        raise UnusableError(Fault(shown, "not a URL", f"write {scheme}://..."))
    check_scheme(scheme, shown)
    _refuse_credentials(scheme, text[match.end() :].split("/", 1)[0])
    _refuse_tricks(text, shown)
    rest = text[match.end() :].strip("/")
    if scheme in S3_SCHEMES:
        scheme = "s3"
        if not rest or match[2] != "//":
            raise UnusableError(Fault(shown, "no bucket", "write s3://BUCKET/PATH"))
    return Location(f"{scheme}://{rest}")


def _absolute(path: str) -> str:
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise UnusableError(Fault(path, str(error), "write the whole path")) from error
    # Path.resolve would follow links and print another path than the one given; POSIX lets `//x` mean something else.
    return "/" + os.path.normpath(expanded.absolute()).lstrip("/")


def _locate_file_url(url: str, shown: str) -> Location:
    host = urlsplit(url).netloc
    if host not in {"", "localhost"}:
        raise UnusableError(Fault(shown, "a file URL with a host", "write file:///ABSOLUTE/PATH"))
    path = unquote(url.split(":", 1)[1].removeprefix("//").removeprefix("localhost"))
    if _CONTROL.search(path):
        raise UnusableError(Fault(shown, "a control character in a path or URL", "remove it"))
    if not path.startswith("/"):
        raise UnusableError(Fault(shown, "a file URL without a path", "write file:///ABSOLUTE/PATH"))
    return Location(_absolute(path))


def _without_secrets(url: str) -> str:
    before, option, after = re.match(r"(.*?)(\?[\w.-]+=|$)(.*)", url, re.DOTALL).groups()  # type: ignore[union-attr]
    if option and "@" in after:
        return before.split(":", 1)[0] + "://..."
    # Greedy: a secret key may hold slashes.
    return re.sub(r"://.*@", "://...@", before, flags=re.DOTALL) + ("?..." if option else "")


def _refuse_credentials(scheme: str, authority: str) -> None:
    user, at, _ = authority.partition("@")
    # abfs://container@account is a name, host:80 a port; user:word@host is neither, also where the word holds a slash.
    is_name = scheme in {"abfs", "abfss", "az"} and ":" not in user
    _, colon, port = authority.partition(":")
    if (at and not is_name) or (colon and (scheme in S3_SCHEMES or not port.isdigit())):
        raise UnusableError(Fault(f"{scheme}://...", "credentials inside a URL", _USE_ENVIRONMENT))


def _refuse_tricks(url: str, shown: str) -> None:
    """What makes a URL mean another place than it seems to."""
    # A `?` alone may be part of a glob; `?name=` is an option (or a signature).
    if re.search(r"\?[\w.-]+=", url):
        raise UnusableError(Fault(shown, "options inside a URL", _USE_ENVIRONMENT))
    if "#" in url:
        raise UnusableError(Fault(shown, "a fragment (#) inside a URL", "name the file or folder alone"))
    if "\\" in url:
        raise UnusableError(Fault(shown, "a backslash inside a URL", "write /"))
    plain = url
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    if ".." in re.split(r"[/\\]", plain):
        raise UnusableError(Fault(shown, "`..` inside a URL", "write the whole path"))


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


def open_local(location: Location) -> BinaryIO:
    """A local file, opened to be read. Raises OSError, and `UnusableError` for what is no plain file: a pipe would wait
    for ever."""
    path = Path(location.path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UnusableError(Fault(str(location), "is no plain file", "replace it by one"))
    return path.open("rb")


def read_bytes(location: Location, *, most_bytes: int | None = None, budget_s: float = RETRY_BUDGET_S) -> bytes:
    """The whole content of a file that fits in memory.

    Raises `UnusableError` for more than `most_bytes` and for what is no plain file (a pipe would wait for ever),
    FileNotFoundError or PermissionError as they come, `StorageError` when the store does not answer for `budget_s`
    seconds.
    """
    if location.is_local:
        with open_local(location) as file:
            return _read_at_most(file, location, most_bytes)

    def read() -> bytes:
        if location.is_s3:
            if most_bytes is not None:
                _check_size(location, int(s3.head(location.path)["ContentLength"]), most_bytes)
            return s3.read(location.path)
        with location.filesystem.open(location.path, "rb") as file:
            return _read_at_most(file, location, most_bytes)

    return retry_transient(read, f"reading {location}", budget_s)


def _read_at_most(file: BinaryIO, location: Location, most_bytes: int | None) -> bytes:
    data = file.read(-1 if most_bytes is None else most_bytes + 1)
    _check_size(location, len(data), most_bytes)
    return data


def _check_size(location: Location, n_bytes: int, most_bytes: int | None) -> None:
    if most_bytes is not None and n_bytes > most_bytes:
        what = f"it has {n_bytes:,} bytes or more, the most for such a file is {most_bytes:,}"
        raise UnusableError(Fault(str(location), what, "is this the right file?"))


def delete(location: Location, *, budget_s: float = RETRY_BUDGET_S) -> None:
    """Delete one file; nothing happens when there is none.

    Raises PermissionError as it comes, `StorageError` when the store does not answer for `budget_s` seconds.
    """
    if location.is_s3:
        retry_transient(lambda: s3.delete(location.path), f"deleting {location}", budget_s)
        return
    # The file may be gone already: two runs may clean up after the same dead one.
    with contextlib.suppress(FileNotFoundError):
        location.filesystem.rm_file(location.path)
