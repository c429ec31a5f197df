"""Which places the operator allows: folders and URL prefixes that everything a manifest names must lie below.

A manifest may come from somebody else. `--allow-root` and `REMBERT_RAY_ALLOW_ROOTS` keep it from reading `/etc` or
writing next door. This guards against manifests, not against people who may start processes here, and not against
somebody who moves links in an allowed folder while a job runs. It must not read any file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.filesystem import LOCAL_SCHEMES, S3_SCHEMES, check_scheme
from rembert_ray.storage.listing import input_root
from rembert_ray.storage.location import Location, locate

ENVIRONMENT = "REMBERT_RAY_ALLOW_ROOTS"
OPTION = "--allow-root"
MAX_FAULTS = 20
_BARE_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_WILDCARD = re.compile(r"[*?\[]")
_FIX = f"name a place below one of them, or ask the operator ({OPTION}, {ENVIRONMENT})"


@dataclass(frozen=True)
class AllowedRoots:
    """Lists of roots; a place must lie below one of each list. Without a list everything is allowed."""

    lists: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def given(cls, options: Sequence[str] = ()) -> AllowedRoots:
        """The roots of `--allow-root` and those of the environment (with commas between them), where there are any.

        A root is a folder, a URL prefix such as `s3://bucket/prefix`, or a bare scheme such as `s3://` for all of its
        buckets. The option narrows what the environment allows and never widens it.

        Raises:
            UnusableError: a root that is no place, or a variable that is set but names none.
        """
        written = os.environ.get(ENVIRONMENT)
        found = [_roots(OPTION, options)] if options else []
        if written is not None:
            found.append(_roots(ENVIRONMENT, [part.strip() for part in written.split(",") if part.strip()]))
        return cls(tuple(found))

    def faults(self, where: str, place: str, *, is_pattern: bool = False) -> list[Fault]:
        """What is wrong with a place of a manifest, `where` being its key: nothing, or that it is not allowed.

        Links are followed. Of a glob (`is_pattern`) the folder before the first wildcard counts. Raises
        `UnusableError` for what is no place.
        """
        if not self.lists:
            return []
        is_pattern = is_pattern and _WILDCARD.search(place) is not None
        return self._faults(where, input_root(place) if is_pattern else locate(place))

    def file_faults(self, where: str, files: Iterable[Location]) -> list[Fault]:
        """The files of an allowed folder that are links to somewhere else, at most 20 of them."""
        found: list[Fault] = []
        for file in files if self.lists else ():
            if len(found) == MAX_FAULTS:
                break
            found += self._faults(where, file)
        return found

    def _faults(self, where: str, location: Location) -> list[Fault]:
        real = _real(location)
        if all(any(_is_below(real, root) for root in roots) for roots in self.lists):
            return []
        leads = "" if real == location.url else f" leads to {real}, which"
        roots = "; and ".join(", ".join(roots) for roots in self.lists)
        return [Fault(where, f"{location}{leads} is outside of what the operator allows: {roots}", _FIX)]


def _roots(source: str, written: Sequence[str]) -> tuple[str, ...]:
    if not written:
        raise UnusableError(Fault(source, "is set, but names no root", "unset it, or name folders or URL prefixes"))
    return tuple(_root(source, text) for text in written)


def _root(source: str, text: str) -> str:
    if _WILDCARD.search(text):
        raise UnusableError(Fault(f"{source} {text}", "a root is a folder or a prefix, no pattern", "leave it out"))
    bare = _BARE_SCHEME.fullmatch(text)
    if bare is None:
        return _real(locate(text))
    if bare[1].lower() in LOCAL_SCHEMES:
        return "/"
    check_scheme(bare[1].lower(), f"{source} {text}")
    return "s3://" if bare[1].lower() in S3_SCHEMES else f"{bare[1].lower()}://"


def _real(location: Location) -> str:
    return os.path.realpath(location.path) if location.is_local else location.url


def _is_below(url: str, root: str) -> bool:
    return url == root or url.startswith(root if root.endswith("/") else root + "/")
