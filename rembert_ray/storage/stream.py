"""Large files from beginning to end: as a stream, or as a local copy.

On S3 every request is a range with a deadline and retries of its own, and all ranges are of one version of the object:
a reply of two bytes a second ends in another attempt, not in a job that hangs. It writes nothing but local copies.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from rembert_ray.storage.filesystem import retry_transient
from rembert_ray.storage.location import Location, open_local
from rembert_ray.storage.ranges import RangeReader

BUFFER_BYTES = 2**20
DOWNLOAD_STEP_BYTES = 64 * 2**20


def open_file(location: Location) -> BinaryIO:
    """The file, opened to be read and sought in; a context manager. Small reads are gathered into requests of 1 MiB.

    Raises, here or on reading, `StorageError` when the store does not answer, `UnusableError` for a local thing that is
    no plain file (a pipe would wait for ever), and what the filesystem raises (`storage_errors`) for other reasons.
    """
    if location.is_local:
        return open_local(location)
    if location.is_s3:
        return cast(BinaryIO, io.BufferedReader(_Retried(location), BUFFER_BYTES))
    return cast(BinaryIO, location.filesystem.open(location.path, "rb"))


def download(location: Location, target: Path) -> None:
    """Copy a remote file to a new local one, 64 MiB at a time. Raises as `open_file` does."""
    with open_file(location) as source, target.open("xb") as file:
        while data := source.read(DOWNLOAD_STEP_BYTES):
            file.write(data)


class _Retried(io.RawIOBase):
    """A `RangeReader` each of whose requests is tried again as long as its failure is a passing one."""

    def __init__(self, location: Location) -> None:
        self._what = f"reading {location}"
        self._reader = retry_transient(lambda: RangeReader(location), self._what)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._reader.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        start = self._reader.tell()

        def read() -> bytes:
            self._reader.seek(start)
            return self._reader.read(len(target))

        data = retry_transient(read, self._what)
        target[: len(data)] = data
        return len(data)
