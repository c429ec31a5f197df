"""Reads and writes the tensors of safetensors files; which tensors and where they go is for others to say.

Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.inventory import INDEX_FILE, WEIGHTS_FILE
from rembert_ray.models.inventory import Tensor as StoredTensor
from rembert_ray.models.safetensors_stream import DTYPES as TYPE_NAMES
from rembert_ray.models.safetensors_stream import LazyTensor, write_stream
from rembert_ray.storage.filesystem import retry_transient
from rembert_ray.storage.location import Location
from rembert_ray.storage.put import put_replacing
from rembert_ray.storage.stream import download

DTYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}
BUFFER_BYTES = 16 * 2**20


def read_tensors(folder: Location, inventory: Mapping[str, StoredTensor], places: Mapping[str, Tensor]) -> None:
    """Fill `places` (contiguous tensors of the stored shapes, of any type and device) by name.

    The files are read through one small buffer. Memory-mapping them, as the library does, would count every page
    read as the process's own: twice the weights at the peak (benchmarks/RESULTS.md).

    Raises:
        UnusableError: a file ends before its tensors do.
    """
    buffer = torch.empty(BUFFER_BYTES, dtype=torch.uint8)
    in_order = sorted(places, key=lambda name: (inventory[name].file, inventory[name].start))
    for file, names in groupby(in_order, key=lambda name: inventory[name].file):
        with _open(folder.child(file)) as stream:
            for name in names:
                if not _read(stream, inventory[name], places[name], buffer):
                    raise UnusableError(Fault(str(folder.child(file)), "is cut short", "download it again"))


def write_tensors(folder: Location, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> None:
    """Write `model.safetensors`, or several files of at most `max_shard_bytes` with their index."""
    shards = _in_shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        _write(folder.child(WEIGHTS_FILE), shards[0])
        return
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        _write(folder.child(file), shard)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    put_replacing(folder.child(INDEX_FILE), text.encode())


@contextmanager
def _open(location: Location) -> Iterator[BinaryIO]:
    """A local file, or a temporary local copy of a remote one: one long transfer instead of many small ones."""
    with tempfile.TemporaryDirectory(prefix="rembert-ray-") as scratch:
        path = Path(location.path)
        if not location.is_local:
            path = Path(scratch) / "weights"
            download(location, path)
        with path.open("rb", buffering=0) as stream:
            yield stream


def _read(stream: BinaryIO, stored: StoredTensor, place: Tensor, buffer: Tensor) -> bool:
    stream.seek(stored.start)
    flat, dtype = place.view(-1), DTYPES[stored.dtype]
    n_items = BUFFER_BYTES // dtype.itemsize
    for first in range(0, len(flat), n_items):
        part = flat[first : first + n_items]
        is_direct = part.dtype == dtype and part.device.type == "cpu"
        target = part.view(torch.uint8) if is_direct else buffer[: part.numel() * dtype.itemsize]
        if not _fill(stream, target.numpy().data):
            return False
        if not is_direct:
            part.copy_(target.view(dtype))
    return True


def _fill(stream: BinaryIO, target: memoryview) -> bool:
    filled = 0
    while filled < len(target):
        n_read = stream.readinto(target[filled:])  # type: ignore[attr-defined]
        if not n_read:
            return False
        filled += n_read
    return True


def _in_shards(tensors: Iterable[tuple[str, Tensor]], max_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled_bytes = 0
    for name, tensor in tensors:
        if shards[-1] and filled_bytes + tensor.nbytes > max_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = tensor
        filled_bytes += tensor.nbytes
    return shards


def write_file(location: Location, tensors: Mapping[str, LazyTensor]) -> None:
    """Write one file, a tensor at a time; a file that is there is replaced as a whole, and nobody reads half of one."""
    if location.is_local:
        path = Path(location.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as beside:
            write_stream(Path(beside) / path.name, tensors)
            (Path(beside) / path.name).rename(path)
        return
    with tempfile.TemporaryDirectory(prefix="rembert-ray-") as scratch:
        write_stream(Path(scratch) / "weights", tensors)
        source = str(Path(scratch) / "weights")
        retry_transient(lambda: location.filesystem.put_file(source, location.path), f"writing {location}")


def _write(location: Location, tensors: Mapping[str, Tensor]) -> None:
    write_file(location, {name: LazyTensor.of(tensor) for name, tensor in tensors.items()})
