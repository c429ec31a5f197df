"""A file that carries the sha256 of itself, so that one flipped bit is found where no store keeps a checksum.

The digest is taken with its own 64 characters as zeros. They stand behind `MARKER`, near the end of the file: in
Parquet as the key-value `rembert_ray.seal` of the footer, in JSON as the last key. A seal tells damage, not intent:
whoever changes a file on purpose can seal it again. This file reads and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL_KEY = "seal"
MARKER = b"sha256-of-this-file:"
_ZEROS = b"0" * 64
PLACEHOLDER = (MARKER + _ZEROS).decode()
NO_SEAL = "it carries no seal"
_TAIL_BYTES = 64 * 1024

Buffer = bytes | bytearray | memoryview


def seal_in_place(data: bytearray | memoryview) -> None:
    """Put the digest where the last placeholder is. ValueError when the last marker has none behind it."""
    start = _digest_at(data)
    if start < 0 or bytes(data[start : start + 64]) != _ZEROS:
        raise ValueError("no place for a seal")
    data[start : start + 64] = _digest(data, start).encode()


def seal(data: bytes) -> bytes:
    """A sealed copy. Raises like `seal_in_place`."""
    sealed = bytearray(data)
    seal_in_place(sealed)
    return bytes(sealed)


def sealed_json(values: Mapping[str, Any]) -> bytes:
    """The values as a JSON object whose last key is its seal. TypeError for what JSON cannot hold."""
    others = {key: value for key, value in values.items() if key != SEAL_KEY}
    return seal(json.dumps({**others, SEAL_KEY: PLACEHOLDER}, indent=1).encode())


def sealed_text(text: str) -> bytes:
    """The text with its seal as the last line."""
    return seal(f"{text}\n{PLACEHOLDER}\n".encode(errors="backslashreplace"))


def broken_seal(data: Buffer) -> str | None:
    """What is wrong with the seal of a file (`NO_SEAL`, or both digests); None when it is whole."""
    start = _digest_at(data)
    if start < 0:
        return NO_SEAL
    sealed, found = bytes(data[start : start + 64]).decode(errors="replace"), _digest(data, start)
    return None if sealed == found else f"its sha256 is {found[:16]}..., its seal says {sealed[:16]}..."


def _digest_at(data: Buffer) -> int:
    """Where the 64 characters behind the last marker start, -1 without one. Copies little: seals are near the end."""
    n_tail = _TAIL_BYTES
    while True:
        tail_start = max(0, len(data) - n_tail)
        found = bytes(data[tail_start:]).rfind(MARKER)
        if found >= 0:
            return tail_start + found + len(MARKER)
        if tail_start == 0:
            return -1
        n_tail *= 16


def _digest(data: Buffer, start: int) -> str:
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[start + 64 :])
    return digest.hexdigest()
