"""Small files beside the output that say where it stands: `_SUCCESS`, the status, and records of failed shards.

None of them decides anything: what is done is what objects are there.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, exists, read_bytes
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import put_replacing
from rembert_ray.storage.seal import NO_SEAL, broken_seal, sealed_json

SUCCESS = "_SUCCESS"
STATUS = "status.json"
QUARANTINE = "quarantine"
# Nothing waits for a status: the next one comes in seconds.
WRITE_BUDGET_S = 5.0


def is_success(output: Location) -> bool:
    """Whether a run has closed this output."""
    return exists(output.child(SUCCESS))


def close(output: Location, values: Mapping[str, Any]) -> None:
    """Write `_SUCCESS`: the output is whole. Raises `StorageError`."""
    put_replacing(output.child(SUCCESS), sealed_json(values))


def write(output: Location, values: Mapping[str, Any]) -> None:
    """Replace `_rembert_ray/status.json`. Raises `StorageError`."""
    stamped = {"updated": datetime.now(UTC).isoformat(timespec="seconds"), **values}
    put_replacing(output.child(CONTROL_FOLDER, STATUS), sealed_json(stamped), budget_s=WRITE_BUDGET_S)


def read(output: Location) -> dict[str, Any] | None:
    """The last status; None when no run has written one yet, or when it is damaged (`verify` says so).

    Raises `StorageError`.
    """
    return _read(output.child(CONTROL_FOLDER, STATUS))


def read_success(output: Location) -> dict[str, Any] | None:
    """What `_SUCCESS` holds; None when there is none, or when it is damaged. Raises `StorageError`."""
    return _read(output.child(SUCCESS))


def _read(location: Location) -> dict[str, Any] | None:
    try:
        data = read_bytes(location)
        values: dict[str, Any] = json.loads(data)
    except (FileNotFoundError, ValueError):
        return None
    return values if broken_seal(data) in (None, NO_SEAL) else None


def quarantine(output: Location, name: str, record: Mapping[str, Any]) -> None:
    """Record why a shard was given up or a file set aside, as `_rembert_ray/quarantine/<name>.json`."""
    put_replacing(output.child(CONTROL_FOLDER, QUARANTINE, f"{name}.json"), sealed_json(record))


def release_quarantined(output: Location, committed: Container[int]) -> None:
    """Delete the records of shards that are committed by now: an old record must not alarm anybody."""
    folder = output.child(CONTROL_FOLDER, QUARANTINE)
    for name in list_names(folder, "shard-"):
        number = name.removeprefix("shard-").removesuffix(".json")
        if number.isdecimal() and int(number) in committed:
            delete(folder.child(name))
