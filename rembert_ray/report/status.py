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

SUCCESS = "_SUCCESS"
STATUS = "status.json"
QUARANTINE = "quarantine"


def is_success(output: Location) -> bool:
    """Whether a run has closed this output."""
    return exists(output.child(SUCCESS))


def write(output: Location, values: Mapping[str, Any]) -> None:
    """Replace `_rembert_ray/status.json`. Raises `StorageError`."""
    stamped = {"updated": datetime.now(UTC).isoformat(timespec="seconds"), **values}
    put_replacing(output.child(CONTROL_FOLDER, STATUS), json.dumps(stamped, indent=1).encode())


def read(output: Location) -> dict[str, Any] | None:
    """The last status, None when no run has written one yet. Raises `StorageError`."""
    try:
        values: dict[str, Any] = json.loads(read_bytes(output.child(CONTROL_FOLDER, STATUS)))
    except FileNotFoundError:
        return None
    return values


def quarantine(output: Location, shard: int, record: Mapping[str, Any]) -> None:
    """Record why a shard was given up, as `_rembert_ray/quarantine/shard-<number>.json`."""
    put_replacing(_record_of(output, shard), json.dumps(record, indent=1).encode())


def release_quarantined(output: Location, committed: Container[int]) -> None:
    """Delete the records of shards that are committed by now: an old record must not alarm anybody."""
    for name in list_names(output.child(CONTROL_FOLDER, QUARANTINE), "shard-"):
        number = name.removeprefix("shard-").removesuffix(".json")
        if number.isdecimal() and int(number) in committed:
            delete(_record_of(output, int(number)))


def _record_of(output: Location, shard: int) -> Location:
    return output.child(CONTROL_FOLDER, QUARANTINE, f"shard-{shard:08d}.json")
