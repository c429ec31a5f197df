"""What a model folder holds, read from safetensors headers alone: names, types and shapes. No torch, no weights.

Format: https://huggingface.co/docs/safetensors (8 bytes of little-endian length, a JSON header, the data).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.weight_map import HEAD_PREFIXES, Weight
from rembert_ray.storage.location import Location, exists, read_bytes

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MAX_HEADER_BYTES = 100_000_000
N_NAMES_SHOWN = 8

PREFIX = "rembert."
# Stored by checkpoints of transformers before 4.31 although they hold nothing that was learnt.
IGNORED_SUFFIX = "embeddings.position_ids"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint: the file that holds it, its safetensors type name and its shape."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def read_inventory(folder: Location) -> dict[str, Tensor]:
    """Names and shapes of all tensors of `<folder>/model.safetensors`, or of the files that its index names.

    Raises:
        UnusableError: neither is there, a file of the index is missing, or a header is not a safetensors header.
    """
    if exists(folder.child(INDEX_FILE)):
        files = _files_of_index(folder)
    elif exists(folder.child(WEIGHTS_FILE)):
        files = [WEIGHTS_FILE]
    else:
        raise UnusableError(
            Fault(
                str(folder),
                f"holds neither {WEIGHTS_FILE} nor {INDEX_FILE}",
                "weights are read as safetensors only; save the model with save_pretrained(safe_serialization=True)",
            )
        )
    inventory: dict[str, Tensor] = {}
    for file in files:
        inventory |= _read_header(folder.child(file), file)
    return inventory


def match(
    inventory: Mapping[str, Tensor], weights: Sequence[Weight], where: str
) -> tuple[dict[str, tuple[str, ...]], list[Fault]]:
    """Which tensors make up which parameter, and every name or shape that is missing, unknown or wrong.

    A base model may be read from the checkpoint of a head (`rembert.` before every name) and the other way round;
    tensors of heads and of the pooler may stay unread. Everything else must fit, name by name.

    Returns:
        For each parameter the names of its tensors in the file (complete only when there are no faults), and faults.
    """
    bare = not any(name.startswith(PREFIX) for name in inventory)
    found: dict[str, tuple[str, ...]] = {}
    missing: list[str] = []
    shapes: list[str] = []
    used: set[str] = set()
    for weight in weights:
        names = tuple(_stored_name(source, bare) for source in weight.sources)
        found[weight.name] = names
        used.update(names)
        for name in names:
            if name not in inventory:
                missing.append(name)
            elif inventory[name].shape != weight.source_shape:
                shapes.append(f"{name} is {list(inventory[name].shape)}, expected {list(weight.source_shape)}")
            elif inventory[name].dtype not in DTYPES:
                shapes.append(f"{name} has type {inventory[name].dtype}, expected one of {', '.join(DTYPES)}")
    unknown = [name for name in inventory if name not in used and not _may_stay_unread(name)]
    return found, [
        *_fault(where, "missing", missing, "the folder holds another head or another architecture"),
        *_fault(where, "unknown", unknown, "the folder holds another architecture"),
        *_fault(where, "wrong", shapes, "config.json and the weights belong to different models"),
    ]


def _stored_name(source: str, bare: bool) -> str:
    stem = source.removeprefix(PREFIX)
    is_head = stem.startswith(HEAD_PREFIXES)
    return stem if bare or is_head else PREFIX + stem


def _may_stay_unread(name: str) -> bool:
    stem = name.removeprefix(PREFIX)
    return stem.startswith((*HEAD_PREFIXES, "pooler.")) or stem == IGNORED_SUFFIX


def _fault(where: str, kind: str, names: Sequence[str], fix: str) -> list[Fault]:
    if not names:
        return []
    more = f" and {len(names) - N_NAMES_SHOWN} more" if len(names) > N_NAMES_SHOWN else ""
    shown = ", ".join(names[:N_NAMES_SHOWN])
    return [Fault(where, f"{len(names)} {kind} tensor{'s' * (len(names) > 1)}: {shown}{more}", fix)]


def _files_of_index(folder: Location) -> list[str]:
    where = folder.child(INDEX_FILE)
    try:
        weight_map = json.loads(read_bytes(where))["weight_map"]
        files = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableError(Fault(str(where), f"is not a safetensors index: {error!r}")) from error
    # A name with a slash or `..` would read outside of the folder.
    odd = [file for file in files if "/" in file or "\\" in file or file.startswith(".")]
    absent = [file for file in files if file not in odd and not exists(folder.child(file))]
    if odd or absent:
        raise UnusableError(
            [Fault(str(where), f"names {file!r}, which is no plain file name") for file in odd]
            + [Fault(str(where), f"names {file}, which is not there", "copy the whole folder") for file in absent]
        )
    return files


def _read_header(location: Location, file: str) -> dict[str, Tensor]:
    try:
        with location.filesystem.open(location.path, "rb") as stream:
            size_bytes = stream.seek(0, 2)
            stream.seek(0)
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if not 0 < header_bytes <= min(MAX_HEADER_BYTES, size_bytes - 8):
                raise ValueError(f"header of {header_bytes:,} bytes in a file of {size_bytes:,}")
            header = json.loads(stream.read(header_bytes))
        return {
            name: _tensor(entry, file, size_bytes - 8 - header_bytes)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableError(
            Fault(str(location), f"is not a readable safetensors file: {error}", "download it again")
        ) from error


def _tensor(entry: dict[str, Any], file: str, data_bytes: int) -> Tensor:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= data_bytes:
        raise ValueError(f"tensor data at {start}:{end} of {data_bytes:,} bytes: the file is cut short")
    if dtype in DTYPES and end - start != DTYPES[dtype] * math.prod(shape):
        raise ValueError(f"{end - start} bytes for shape {list(shape)} of {dtype}")
    return Tensor(file, dtype, shape)
