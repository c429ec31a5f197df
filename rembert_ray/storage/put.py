"""Create-only, atomic puts: the primitive under the commit, the plan and the lease.

A file appears under its name complete or not at all, and never replaces another one. This file knows nothing
of what the bytes mean, and never renames over a name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import RETRY_BUDGET_S, explain, retry_transient, storage_errors
from rembert_ray.storage.location import Location

TEMP_PREFIX = ".tmp-"
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_in_process = threading.Lock()


def put_new(
    location: Location,
    data: bytes,
    metadata: Mapping[str, str] | None = None,
    *,
    budget_s: float = RETRY_BUDGET_S,
) -> bool:
    """Create the file, whole, under a name that nobody has yet.

    True: it was created by this call. False: a file of that name exists. After a lost reply that file may be
    *this* one: whoever cares reads it back (see `commit.commit_part`, `lease`).

    `metadata` (ASCII) becomes the user metadata of an object; local files have no place for it. Transient
    failures are tried again for `budget_s` seconds. Raises `StorageError` when the store refuses or gives
    out, `ShardError` for more than 5 GiB on S3, `UnusableError` where the store has no create-only put.
    """
    metadata = metadata or {}
    try:
        if location.is_local:
            return _create_local(Path(location.path), data, metadata.get("attempt", ""))
        if location.is_s3:
            return retry_transient(
                lambda: s3.put(location.path, data, metadata, only_new=True), f"writing {location}", budget_s
            )
        return _create_fsspec(location, data)
    except storage_errors() as error:
        raise StorageError(f"cannot write {explain(str(location), error)}") from error


def put_replacing(location: Location, data: bytes, *, budget_s: float = RETRY_BUDGET_S) -> None:
    """Write the file, whole, over what may be there: for status files only, never for results.

    Readers see the old or the new content, nothing between. Transient failures are tried again for `budget_s` seconds.
    Raises `StorageError`.
    """
    try:
        if location.is_local:
            path = Path(location.path)
            temp = _write_temp(path, data, "")
            temp.replace(path)
            _sync_folder(path.parent)
        elif location.is_s3:
            retry_transient(lambda: s3.put(location.path, data, {}, only_new=False), f"writing {location}", budget_s)
        else:
            location.filesystem.pipe_file(location.path, data)
    except storage_errors() as error:
        raise StorageError(f"cannot write {explain(str(location), error)}") from error


def file_clock_s(folder: Path) -> float:
    """Now, by the clock of the machine that serves `folder` (for NFS that is not this one)."""
    probe = folder / f"{TEMP_PREFIX}clock-{secrets.token_hex(8)}"
    probe.write_bytes(b"")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _write_temp(path: Path, data: bytes, attempt: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = re.sub(r"[^\w.-]", "_", attempt)[:40] or "x"
    temp = path.with_name(f"{TEMP_PREFIX}{path.name}-{attempt}-{secrets.token_hex(4)}")
    try:
        with temp.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    return temp


def _create_local(path: Path, data: bytes, attempt: str) -> bool:
    if path.exists():
        return False
    temp = _write_temp(path, data, attempt)
    try:
        is_created = _name_new(temp, path)
    finally:
        # Gone already where the name was made by a rename.
        with contextlib.suppress(FileNotFoundError):
            temp.unlink()
    if is_created:
        _sync_folder(path.parent)
    return is_created


def _name_new(temp: Path, path: Path) -> bool:
    """Give the complete file its name, unless the name is taken."""
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        # NFS: a link whose reply was lost reports "exists" on the second try although it is ours.
        return temp.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return rename_new(temp, path)
    return True


def rename_new(temp: Path, path: Path) -> bool:
    """Rename unless the name is taken: Linux `renameat2(RENAME_NOREPLACE)`, for file systems without hard
    links.

    There is no third way: reserving the name with O_EXCL would show an empty file, and a plain rename may
    replace the file of another attempt. Raises OSError where the file system does not offer it (EINVAL).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(_AT_FDCWD, os.fsencode(temp), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        return False
    why = "neither hard links nor create-only renames here; use another folder or an object store"
    raise OSError(code, why if code in {errno.EINVAL, errno.ENOSYS} else os.strerror(code), str(path))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; the file itself is on disk.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)


def _create_fsspec(location: Location, data: bytes) -> bool:
    # fsspec's `mode="create"` looks first and writes then, in most of its filesystems: two writers would both win.
    # Within one process a lock makes up for that; a store that is shared needs a condition on the server.
    if location.scheme != "memory":
        fix = "write to a local folder or to an S3-compatible store (s3://)"
        raise UnusableError(Fault(str(location), f"no known create-only put for {location.scheme}://", fix))
    try:
        with _in_process:
            location.filesystem.pipe_file(location.path, data, mode="create")
    except FileExistsError:
        return False
    return True
