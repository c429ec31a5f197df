"""What killed runs and other writers leave behind: temporary files, probes, uploads that nobody completed.

Nothing here is ever read by a job, so removing it changes no result. Parts, the plan, leases and records are not
touched, nor is anything that is not old by the store's own clock: a run that is going on writes such files, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from rembert_ray.errors import StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import explain, retry_transient, storage_errors
from rembert_ray.storage.lease import s3_now, store_age_s
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import TEMP_PREFIX

STALE_AFTER_S = 3600.0
_PROBE = re.compile(r"(?:probe|clock)-[0-9a-f]{16}")
# Where the package writes, and the prefixes under which leftovers can be there.
_PLACES = ((), (CONTROL_FOLDER,), (CONTROL_FOLDER, "quarantine"))


@dataclass(frozen=True)
class Leftover:
    """A file, or a multipart upload (`upload_id`) that was never completed; `age_s` by the clock of the store."""

    location: Location
    age_s: float
    upload_id: str = ""

    def __str__(self) -> str:
        what = f"upload {self.upload_id} of " if self.upload_id else ""
        return f"{what}{self.location} ({self.age_s / 3600:.1f} h old)"

    def remove(self) -> None:
        """Delete it; nothing happens when it is gone."""
        if not self.upload_id:
            delete(self.location)
            return
        abort = partial(s3.call, "abort_multipart_upload", self.location.path, UploadId=self.upload_id)
        with contextlib.suppress(FileNotFoundError):
            retry_transient(abort, f"aborting an upload of {self.location}")


def is_leftover(name: str) -> bool:
    """Whether a file below an output, by its relative name, is one that a killed run leaves."""
    *folders, last = name.split("/")
    is_probe = folders == [CONTROL_FOLDER] and _PROBE.fullmatch(last) is not None
    return tuple(folders) in _PLACES and (last.startswith(TEMP_PREFIX) or is_probe)


def remove_files(output: Location, older_than_s: float, *, dry_run: bool = False) -> list[Leftover]:
    """Remove (with `dry_run`: only find) the files that killed runs left; those that were found.

    A file that vanishes meanwhile is no error. Raises `StorageError` when the store refuses or gives out.
    """
    try:
        return _remove_old(_files(output), older_than_s, dry_run)
    except storage_errors() as error:
        raise StorageError(f"cannot clear {explain(str(output), error)}") from error


def remove_uploads(output: Location, older_than_s: float, *, dry_run: bool = False) -> list[Leftover]:
    """The same for multipart uploads below an output on S3. We make none; other writers do, and they cost money.

    Raises `StorageError`, also where the credentials may not list uploads.
    """
    if not output.is_s3:
        return []
    try:
        return _remove_old(_uploads(output), older_than_s, dry_run)
    except storage_errors() as error:
        raise StorageError(f"cannot clear the uploads below {explain(str(output), error)}") from error


def _remove_old(found: Iterator[Leftover], older_than_s: float, dry_run: bool) -> list[Leftover]:
    old = [leftover for leftover in found if leftover.age_s >= older_than_s]
    for leftover in old if not dry_run else []:
        leftover.remove()
    return old


def _files(output: Location) -> Iterator[Leftover]:
    for folders in _PLACES:
        folder = output.child(*folders) if folders else output
        probes = ("probe-", "clock-") if folders == (CONTROL_FOLDER,) else ()
        for prefix in (TEMP_PREFIX, *probes):
            for name in list_names(folder, prefix):
                if is_leftover("/".join((*folders, name))):
                    with contextlib.suppress(FileNotFoundError):
                        yield Leftover(folder.child(name), max(0.0, store_age_s(folder.child(name))))


def _uploads(output: Location) -> Iterator[Leftover]:
    bucket, _, key = output.path.partition("/")
    ask = partial(s3.call, "list_multipart_uploads", output.path, Prefix=f"{key}/" if key else "")
    while True:
        page = retry_transient(ask, f"listing the uploads below {output}")
        now = s3_now(output.child(CONTROL_FOLDER, "clock"), page)
        for entry in page.get("Uploads", []):
            started: datetime = entry["Initiated"]
            age_s = max(0.0, (now - started).total_seconds())
            yield Leftover(Location(f"s3://{bucket}/{entry['Key']}"), age_s, entry["UploadId"])
        if not page.get("IsTruncated"):
            return
        ask = partial(ask, KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])
