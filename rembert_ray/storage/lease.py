"""One run at a time per output: a lease made of numbered, create-only objects.

`_rembert_ray/lease-000001`, `lease-000002`, ... each name who wrote them; the highest number holds. A
heartbeat, a takeover and a release all create the next number, so of two contenders exactly one succeeds,
without `If-Match`. Age is judged by the store's own clock. A holder that slept may create a number that was
pruned meanwhile: after each creation the listing decides, and whoever is below the highest has lost. A listing that
does not show the own object yet lags behind, and decides nothing.

The lease keeps two runs from doing the same work. It does not guard results: the create-only commit does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rembert_ray.errors import LeaseHeldError, RembertRayError, StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import RETRY_BUDGET_S, explain, retry_transient, storage_errors
from rembert_ray.storage.listing import file_info, list_names
from rembert_ray.storage.location import Location, delete, read_bytes
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import file_clock_s, put_new
from rembert_ray.storage.seal import SEAL_KEY, broken_seal, sealed_json

log = logging.getLogger(__name__)

STALE_AFTER_S = 60.0
HEARTBEATS_PER_STALE = 4
N_KEPT = 3
_LEASE_PREFIX = "lease-"
_LEASE_NAME = re.compile(r"lease-(\d{6,})")


@dataclass(frozen=True)
class LeaseOwner:
    """Who holds a lease, in words that help a person to find the process.

    `place` says which kernel and which process namespace the pid belongs to ("" where that cannot be told), and
    `started` when the process started, so that a later process with the same pid is not taken for it.
    """

    host: str
    pid: int
    run_id: str
    place: str = ""
    started: str = ""

    @classmethod
    def this_process(cls, run_id: str) -> LeaseOwner:
        """The owner for a run in this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), pid, run_id, _this_place(), _started(pid))

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; False also when it lives elsewhere or cannot be seen."""
        return bool(self.place) and self.place == _this_place() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"run {self.run_id} (process {self.pid} on {self.host})"


def _this_place() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start of a process in clock ticks since boot (proc(5): stat, field 22); "" when it has ended or never was."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if values[0] in "ZX" else values[19]


@dataclass(frozen=True)
class _Record:
    """The content of one lease object."""

    owner: LeaseOwner
    attempt: str
    state: str
    since: str
    stale_after_s: float

    def to_json(self) -> bytes:
        return sealed_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> _Record:
        if fault := broken_seal(data):
            raise ValueError(fault)
        values: dict[str, Any] = json.loads(data)
        del values[SEAL_KEY]
        return cls(**{**values, "owner": LeaseOwner(**values["owner"])})


def store_age_s(location: Location) -> float:
    """Seconds since the file was written, by the clock of the store, never by the local one.

    S3: `Last-Modified` against the `Date` of the same reply. Local: against a file written now in the same
    folder. Elsewhere (`memory://`) the store is this process, and so is its clock.
    """
    if location.is_s3:
        head = retry_transient(lambda: s3.head(location.path), f"reading the age of {location}")
        modified: datetime = head["LastModified"]
        return (s3_now(location, head) - modified).total_seconds()
    if location.is_local:
        path = Path(location.path)
        return file_clock_s(path.parent) - path.stat().st_mtime
    created: datetime = location.filesystem.modified(location.path)
    return (datetime.now(UTC) - created.replace(tzinfo=created.tzinfo or UTC)).total_seconds()


def s3_now(location: Location, reply: dict[str, Any]) -> datetime:
    """The time on the store's clock when it gave a reply to a question about `location`."""
    date: str | None = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is not None:
        return parsedate_to_datetime(date)
    # Some gateways send no Date: an object written now has the store's time.
    clock = location.parent.child(f"clock-{secrets.token_hex(8)}")
    put_new(clock, b"")
    try:
        modified: datetime = s3.head(clock.path)["LastModified"]
    finally:
        delete(clock)
    return modified


class Lease:
    """The right to write to an output, kept alive by a thread. Make it with `acquire`, use it in a `with`
    block."""

    def __init__(self, folder: Location, record: _Record, number: int) -> None:
        self._folder = folder
        self._record = record
        self._number = number
        self._renewed_at = time.monotonic()
        self._lost_to = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def acquire(
        cls,
        output: Location,
        owner: LeaseOwner,
        stale_after_s: float = STALE_AFTER_S,
        *,
        heartbeat: bool = True,
        measure_age_s: Callable[[Location], float] = store_age_s,
    ) -> Lease:
        """Take the lease of `output`: when nobody has it, it was released, its holder is silent for too long,
        or was a process of this machine that has ended.

        Too long is what the holder promised in its own lease. With `heartbeat`, a daemon thread renews it
        four times per `stale_after_s`. Raises `LeaseHeldError` (who, since when, what to do) and
        `StorageError`.
        """
        folder = output.child(CONTROL_FOLDER)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        record = _Record(owner, secrets.token_hex(8), "held", since, stale_after_s)
        highest = _highest_by_name(folder)
        if highest:
            _refuse_if_held(folder, highest, measure_age_s)
        lease = cls(folder, record, highest + 1)
        is_ours = lease._create(highest + 1, record)
        if not is_ours or _highest(folder) > highest + 1:
            if is_ours:
                delete(_object(folder, highest + 1))
            raise LeaseHeldError(f"{output}: another run took the lease at the same moment; only one can write here")
        lease._prune(highest + 1)
        if heartbeat:
            lease._start()
        return lease

    @property
    def lost(self) -> bool:
        """Whether another run is known to have taken the lease.

        A lease that could not be renewed in time is not lost by that alone: if the store was away, it was
        away for everybody, and the next heartbeat finds out who holds it. See `silent_s`.
        """
        return bool(self._lost_to)

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat that the store confirmed; above `stale_after_s` others may take
        over."""
        return time.monotonic() - self._renewed_at

    def check(self) -> None:
        """Raise `LeaseHeldError` once the lease is lost. Costs nothing: the driver calls it in its loop."""
        if self._lost_to:
            raise LeaseHeldError(
                f"{self._folder.parent}: {self._lost_to} has taken over the lease, because this run was silent for "
                f"more than {self._record.stale_after_s:.0f} s; this run stops, what it committed stays"
            )

    def beat(self) -> None:
        """Renew the lease now. Raises `LeaseHeldError` when another run has taken it, `StorageError` when
        unsure."""
        with self._lock:
            self.check()
            began = time.monotonic()
            number = self._number + 1
            is_ours = self._create(number, self._record)
            highest = _highest(self._folder, self._interval_s)
            if is_ours and highest <= number:
                self._number, self._renewed_at = number, began
                self._prune(number)
                return
            if is_ours:
                # Pruned numbers can be created again: this one means nothing, and must not stay.
                delete(_object(self._folder, number))
            winner = _read(self._folder, highest)
            self._lost_to = str(winner.owner) if winner is not None else "another run"
            self.check()

    def release(self) -> None:
        """Give the lease back, so that the next run need not wait. Harmless when it is lost or released
        already."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._record.state == "released" or self.lost:
                return
            self._record = replace(self._record, state="released")
            # Not worth an error at the end of a run: a lease that stays behind goes stale by itself.
            with contextlib.suppress(StorageError, *storage_errors()):
                if self._create(self._number + 1, self._record):
                    self._number += 1
                    self._prune(self._number, n_kept=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._beat_until_stopped, name="lease-heartbeat", daemon=True)
        self._thread.start()

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.beat()
            except LeaseHeldError:
                return
            except RembertRayError as error:
                log.warning("the lease of %s is not renewed yet: %s", self._folder.parent, error)
            except storage_errors() as error:
                log.warning("the lease of %s is not renewed yet: %s", self._folder.parent, error)

    @property
    def _interval_s(self) -> float:
        return self._record.stale_after_s / HEARTBEATS_PER_STALE

    def _create(self, number: int, record: _Record) -> bool:
        location = _object(self._folder, number)
        content = record.to_json()
        if put_new(location, content, {"attempt": record.attempt}, budget_s=self._interval_s):
            return True
        # "It exists" may be the answer to our own put whose first reply was lost.
        return _read(self._folder, number) == record

    def _prune(self, number: int, n_kept: int = N_KEPT) -> None:
        try:
            for older in _numbers(self._folder, self._interval_s):
                if older <= number - n_kept:
                    delete(_object(self._folder, older), budget_s=self._interval_s)
        # What stays behind says nothing wrong, and the next heartbeat prunes it.
        except StorageError as error:
            log.warning("old leases of %s are not deleted yet: %s", self._folder.parent, error)
        except storage_errors() as error:
            log.warning("old leases of %s are not deleted yet: %s", self._folder.parent, error)


@dataclass(frozen=True)
class Holder:
    """Who wrote the last lease of an output, and whether it holds; `age_s` is None where that cannot be told.

    since: when the lease was taken, ISO 8601 by the holder's own clock; age_s: of the last heartbeat, by the store's.
    """

    owner: LeaseOwner
    since: str
    age_s: float | None
    is_released: bool
    stale_after_s: float

    @property
    def is_held(self) -> bool:
        """Whether a run is going on, as far as can be told: neither released, nor dead, nor silent for too long."""
        is_stale = self.age_s is not None and self.age_s > self.stale_after_s
        return not (self.is_released or is_stale or self.owner.is_dead)


def last_holder(output: Location, *, measure_age_s: Callable[[Location], float] = store_age_s) -> Holder | None:
    """Who wrote the last lease of an output; None when there is none, or when it is damaged.

    Takes nothing. Raises `StorageError` when the store refuses or gives out.
    """
    folder = output.child(CONTROL_FOLDER)
    number = _highest(folder)
    location = _object(folder, number)
    try:
        record = _Record.from_json(read_bytes(location)) if number else None
    except FileNotFoundError:
        # Pruned at this moment: somebody renews it.
        return last_holder(output, measure_age_s=measure_age_s)
    except (ValueError, TypeError, KeyError):
        return None
    except storage_errors() as error:
        raise StorageError(f"cannot read the lease: {explain(str(folder), error)}") from error
    if record is None:
        return None
    try:
        age_s = None if record.state == "released" else measure_age_s(location)
    except storage_errors():
        # Gone, or nothing may be written here that would tell the store's time: it counts as held.
        age_s = None
    return Holder(record.owner, record.since, age_s, record.state == "released", record.stale_after_s)


def lease_holder(output: Location, *, measure_age_s: Callable[[Location], float] = store_age_s) -> str:
    """Who holds the lease of an output now, in words; "" when nobody does, or when that cannot be told.

    Raises as `last_holder` does.
    """
    holder = last_holder(output, measure_age_s=measure_age_s)
    return str(holder.owner) if holder is not None and holder.is_held else ""


def _refuse_if_held(folder: Location, number: int, measure_age_s: Callable[[Location], float]) -> None:
    try:
        holder = _read(folder, number)
        age_s = measure_age_s(_object(folder, number)) if holder is not None else 0.0
    except FileNotFoundError:
        holder = None
    except storage_errors() as error:
        raise StorageError(f"cannot read the lease: {explain(str(folder), error)}") from error
    if holder is None:
        raise LeaseHeldError(f"{folder.parent}: another run is renewing its lease; only one can write here")
    if holder.state == "released" or age_s > holder.stale_after_s or holder.owner.is_dead:
        return
    raise LeaseHeldError(
        f"{folder.parent}: {holder.owner} writes here since {holder.since}, last seen {max(age_s, 0):.0f} s ago. "
        f"Wait for it or stop it; if it is dead, run this command again in {holder.stale_after_s - age_s + 1:.0f} s"
    )


def _object(folder: Location, number: int) -> Location:
    return folder.child(f"{_LEASE_PREFIX}{number:06d}")


def _read(folder: Location, number: int) -> _Record | None:
    location = _object(folder, number)
    try:
        return _Record.from_json(read_bytes(location))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{location} is not a lease of this version: move it away, then run again") from error


def _numbers(folder: Location, budget_s: float = RETRY_BUDGET_S) -> list[int]:
    try:
        names = list_names(folder, _LEASE_PREFIX, budget_s=budget_s)
    except storage_errors() as error:
        raise StorageError(f"cannot list {explain(str(folder), error)}") from error
    return sorted(int(match[1]) for match in map(_LEASE_NAME.fullmatch, names) if match)


def _highest(folder: Location, budget_s: float = RETRY_BUDGET_S) -> int:
    return max(_numbers(folder, budget_s), default=0)


def _highest_by_name(folder: Location) -> int:
    """Like `_highest`, and further than a listing that lags behind: the next few numbers are looked for by name."""
    highest = _highest(folder)
    try:
        while above := [n for n in range(highest + 1, highest + 1 + N_KEPT) if file_info(_object(folder, n))]:
            highest = max(above)
    except storage_errors() as error:
        raise StorageError(f"cannot read the lease: {explain(str(folder), error)}") from error
    return highest
