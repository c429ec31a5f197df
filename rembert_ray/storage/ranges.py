"""A stored file as pyarrow reads it: piece by piece, and every piece from one and the same version of it.

It knows nothing of Parquet, and does not retry: see `filesystem.retry_transient`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rembert_ray.storage import s3
from rembert_ray.storage.location import Location
from rembert_ray.storage.s3 import ObjectChangedError

FileState = tuple[int, str]
"""Size in bytes and version (as `FileInfo` has them): what tells that a file changed."""


@contextmanager
def opened(location: Location, planned: FileState | None = None) -> Iterator[str | RangeReader]:
    """A local path or a file object with the content of a file, as long as the context lasts.

    The local path leads to the file that was opened, also when another one takes its name meanwhile. With `planned`,
    raises `ObjectChangedError` when the file is another one, at the start or (on local disk) at the end.
    """
    if not location.is_local:
        yield RangeReader(location, planned)
        return
    with Path(location.path).open("rb", buffering=0) as file:
        _compare(planned, _state_of(file))
        try:
            yield f"/proc/self/fd/{file.fileno()}"
        finally:
            # Also after an error: bytes that changed while they were read look like damage.
            _compare(planned, _state_of(file))


def _state_of(file: BinaryIO | io.FileIO) -> FileState:
    status = os.fstat(file.fileno())
    return status.st_size, str(status.st_mtime_ns)


def _compare(planned: FileState | None, found: FileState) -> None:
    """An empty version is one that nobody knows."""
    if planned is None or (planned[0] == found[0] and (found[1] == planned[1] or not (found[1] and planned[1]))):
        return
    raise ObjectChangedError(
        f"it changed: {planned[0]:,} bytes, version {planned[1]} when it was planned; "
        f"{found[0]:,} bytes, version {found[1]} now"
    )


class RangeReader(io.RawIOBase):
    """A remote file: each read is one ranged request with a deadline of its own.

    On S3 all reads are of the object that was there first, which must be the planned one; elsewhere only its size is
    compared. Raises `ObjectChangedError` for another one.
    """

    def __init__(self, location: Location, planned: FileState | None = None) -> None:
        self._location = location
        self._position = 0
        self._etag = ""
        if location.is_s3:
            head = s3.head(location.path)
            self._size_bytes, self._etag = int(head["ContentLength"]), str(head.get("ETag", "")).strip('"')
        else:
            self._size_bytes = int(location.filesystem.size(location.path))
        _compare(planned, (self._size_bytes, self._etag))

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._position

    def size(self) -> int:
        """Bytes of the file; pyarrow asks for it."""
        return self._size_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left without it."""
        stop = self._size_bytes if size < 0 else min(self._position + size, self._size_bytes)
        start, self._position = self._position, max(stop, self._position)
        if stop <= start:
            return b""
        path = self._location.path
        if self._location.is_s3:
            return s3.read_range(path, start, stop, self._etag)
        return bytes(self._location.filesystem.cat_file(path, start=start, end=stop))
