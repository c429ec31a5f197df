"""What a model folder holds, read from safetensors headers alone: names, types and shapes. No torch, no weights.

Format: https://huggingface.co/docs/safetensors (8 bytes of little-endian length, a JSON header, the data).
"""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, BinaryIO

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import BASE, HEAD_PREFIXES, Weight, model_weights
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.json_file import parse_json_object, read_json_object
from rembert_ray.storage.location import Location, exists
from rembert_ray.storage.stream import open_file

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
OLD_WEIGHT_FILES = (
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("tf_model.h5", "tf_model.h5.index.json"),
)
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 100_000
MAX_FILES = 1_000
MAX_DIMENSIONS = 8
LONGEST_NAME = 500
MAX_NAMES_SHOWN = 50
FILE_NAME = re.compile(r"\w[\w.-]{0,250}")
READ_BYTES = 8 * 2**20

LAYER_NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")
# What checkpoints of before 2020 call the parameters of a norm.
OLD_NORM_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
# Stored by checkpoints of transformers before 4.31 although they hold nothing that was learnt.
IGNORED_NAME = "embeddings.position_ids"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint: its file, where its bytes begin there, its safetensors type name and its shape."""

    file: str
    start: int
    dtype: str
    shape: tuple[int, ...]


def read_inventory(folder: Location) -> dict[str, Tensor]:
    """Names and shapes of all tensors of `<folder>/model.safetensors`, or of the files that its index names.

    Raises:
        UnusableError: neither is there, a file of the index is missing, a header is not a safetensors header, or a name
            is in two files.
    """
    if exists(folder.child(INDEX_FILE)):
        files = files_of_index(folder.child(INDEX_FILE))
    elif exists(folder.child(WEIGHTS_FILE)):
        files = [WEIGHTS_FILE]
    else:
        raise UnusableError(
            Fault(
                str(folder),
                f"holds neither {WEIGHTS_FILE} nor {INDEX_FILE}",
                _how_to_convert(folder),
            )
        )
    inventory: dict[str, Tensor] = {}
    for file in files:
        found = _read_header(folder.child(file), file)
        if twice := sorted(inventory.keys() & found.keys()):
            what = f"holds {twice[0]!r}, which is in {inventory[twice[0]].file}, too"
            raise UnusableError(Fault(str(folder.child(file)), what, "download the folder again"))
        inventory |= found
    return inventory


def _how_to_convert(folder: Location) -> str:
    old = [file for file in OLD_WEIGHT_FILES if exists(folder.child(file))]
    if old:
        return f"it holds {old[0]}: run `rembert-ray convert {folder} NEW_FOLDER` and name the new folder"
    return "copy the whole checkpoint folder; weights are read as safetensors only"


@dataclass(frozen=True)
class Match:
    """How well the tensors of a folder fit a model.

    sources: for each parameter the names of its tensors in the file.
    missing: names that the encoder needs and the folder lacks.
    missing_head: names that the head (or pooler) needs and the folder lacks, as when a base model gets a head.
    unknown: names that are neither the model's nor those of another head.
    wrong: tensors of another shape or type, in words.
    """

    sources: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    missing_head: tuple[str, ...]
    unknown: tuple[str, ...]
    wrong: tuple[str, ...]

    def faults(self, where: str) -> list[Fault]:
        """Everything that does not fit."""
        return [
            *_fault(
                where,
                "missing",
                (*self.missing, *self.missing_head),
                "the folder holds another head or another architecture",
            ),
            *_fault(where, "unknown", self.unknown, "the folder holds another architecture"),
            *_fault(where, "wrong", self.wrong, "config.json and the weights belong to different models"),
        ]


def match(inventory: Mapping[str, Tensor], weights: Sequence[Weight], prefix: str) -> Match:
    """Which tensors make up which parameter, and every name or shape that is missing, unknown or wrong.

    A base model may be read from the checkpoint of a head (`prefix` and a dot before every name) and the other way
    round; tensors of heads and of the pooler may stay unread. Everything else must fit, name by name.
    """
    prefix += "."
    bare = not any(name.startswith(prefix) for name in inventory)
    sources = {
        weight.name: tuple(_stored_name(source, prefix, bare, inventory) for source in weight.sources)
        for weight in weights
    }
    missing, wrong = [], []
    for weight in weights:
        for name in sources[weight.name]:
            if name not in inventory:
                missing.append(name)
            elif inventory[name].shape != weight.source_shape:
                wrong.append(f"{name} is {list(inventory[name].shape)}, expected {list(weight.source_shape)}")
            elif inventory[name].dtype not in DTYPES:
                wrong.append(f"{name} has type {inventory[name].dtype}, expected one of {', '.join(DTYPES)}")
    used = {name for names in sources.values() for name in names}
    unknown = (name for name in inventory if name not in used and not _may_stay_unread(name, prefix))
    return Match(
        sources,
        missing=tuple(name for name in missing if not _is_of_head(name, prefix)),
        missing_head=tuple(name for name in missing if _is_of_head(name, prefix)),
        unknown=tuple(unknown),
        wrong=tuple(wrong),
    )


def digest_encoder(folder: Location, config: EncoderConfig) -> str:
    """sha256 over names, types, shapes and bytes of the encoder's tensors, without pooler and head.

    Equal for two folders whose encoders are equal, whatever heads they have.

    Raises:
        UnusableError: the tensors are not those of the configuration, or a file ends before they do.
    """
    inventory, prefix = read_inventory(folder), config.base_model_prefix
    found = match(inventory, model_weights(config, BASE, with_pooler=False), prefix)
    if faults := found.faults(str(folder)):
        raise UnusableError(faults)
    sources = found.sources
    digests: dict[str, bytes] = {}
    in_files = sorted(
        (inventory[name].file, inventory[name].start, name) for names in sources.values() for name in names
    )
    for file, places in groupby(in_files, lambda place: place[0]):
        with open_file(folder.child(file)) as stream:
            for _, _, name in places:
                digests[name.removeprefix(f"{prefix}.")] = _digest_tensor(stream, inventory[name])
    return hashlib.sha256(b"".join(name.encode() + digests[name] for name in sorted(digests))).hexdigest()


def _digest_tensor(stream: BinaryIO, tensor: Tensor) -> bytes:
    digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode())
    stream.seek(tensor.start)
    left = DTYPES[tensor.dtype] * math.prod(tensor.shape)
    while left:
        data = stream.read(min(left, READ_BYTES))
        if not data:
            raise UnusableError(Fault(tensor.file, "is cut short", "download it again"))
        digest.update(data)
        left -= len(data)
    return digest.digest()


def _stored_name(source: str, prefix: str, bare: bool, inventory: Mapping[str, Tensor]) -> str:
    stem = source.removeprefix(prefix)
    name = stem if bare or stem.startswith(HEAD_PREFIXES) else prefix + stem
    old = next((name.removesuffix(new) + was for new, was in OLD_NORM_NAMES.items() if name.endswith(new)), name)
    return old if name not in inventory and old in inventory else name


def _is_of_head(name: str, prefix: str) -> bool:
    return name.removeprefix(prefix).startswith((*HEAD_PREFIXES, "pooler."))


def _may_stay_unread(name: str, prefix: str) -> bool:
    return _is_of_head(name, prefix) or name.removeprefix(prefix) == IGNORED_NAME


def _fault(where: str, kind: str, names: Sequence[str], fix: str) -> list[Fault]:
    if not names:
        return []
    shown = _fold(names)
    more = f" and {len(shown) - MAX_NAMES_SHOWN:,} more" if len(shown) > MAX_NAMES_SHOWN else ""
    listed = ", ".join(shown[:MAX_NAMES_SHOWN]) + more
    return [Fault(where, f"{len(names)} {kind} tensor{'s' * (len(names) > 1)}: {listed}", fix)]


def _fold(names: Sequence[str]) -> list[str]:
    """Every name, but those that differ in the number of the layer only as one: `layer.{0-31}.output.dense.bias`."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in names:
        before, number, after = (*LAYER_NUMBER.split(name, maxsplit=1), "-1", "")[:3]
        numbers.setdefault((before, after), []).append(int(number))
    return [f"{before}{_ranges(found)}{after}" for (before, after), found in numbers.items()]


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0]) if numbers[0] >= 0 else ""
    # Numbers minus their ranks are equal within a run of neighbours.
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return "{" + ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) + "}"


def files_of_index(index: Location) -> list[str]:
    """The files that an index of weights names, all of them beside it.

    Raises:
        UnusableError: it is no index, a name leads out of the folder, or a file is not there.
    """
    try:
        files = set(read_json_object(index)["weight_map"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableError(Fault(str(index), f"is not an index of weights: {error!r}")) from error
    if len(files) > MAX_FILES:
        raise UnusableError(Fault(str(index), f"names {len(files):,} files, the most is {MAX_FILES:,}"))
    # A name with a slash or `..` would read outside of the folder.
    odd = [file for file in files if not (isinstance(file, str) and FILE_NAME.fullmatch(file))]
    absent = [file for file in files if file not in odd and not exists(index.parent.child(file))]
    if odd or absent:
        raise UnusableError(
            [Fault(str(index), f"names {reprlib.repr(file)}, which is no plain file name") for file in odd]
            + [Fault(str(index), f"names {file}, which is not there", "copy the whole folder") for file in absent]
        )
    return sorted(files)


def _read_header(location: Location, file: str) -> dict[str, Tensor]:
    try:
        with open_file(location) as stream:
            size_bytes = stream.seek(0, 2)
            stream.seek(0)
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            if not 0 < header_bytes <= min(MAX_HEADER_BYTES, size_bytes - 8):
                raise ValueError(f"header of {header_bytes:,} bytes in a file of {size_bytes:,}")
            header = parse_json_object(stream.read(header_bytes))
        header.pop("__metadata__", None)
        if len(header) > MAX_TENSORS:
            raise ValueError(f"{len(header):,} tensors, the most is {MAX_TENSORS:,}")
        tensors = {name: _tensor(name, entry, file, 8 + header_bytes, size_bytes) for name, entry in header.items()}
        _refuse_overlaps(header)
    except storage_errors() as error:
        raise UnusableError(explain(str(location), error)) from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableError(
            Fault(str(location), f"is not a readable safetensors file: {str(error)[:200]}", "download it again")
        ) from error
    return tensors


def _tensor(name: str, entry: dict[str, Any], file: str, data_start: int, size_bytes: int) -> Tensor:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if len(name) > LONGEST_NAME or not isinstance(dtype, str) or len(dtype) > LONGEST_NAME:
        raise ValueError(f"the name or type of {name[:40]!r} is none")
    if len(shape) > MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in (*shape, start, end)):
        raise ValueError(f"the shape or place of {name!r} is none")
    if not start <= end <= size_bytes - data_start:
        raise ValueError(f"tensor data at {start}:{end} of {size_bytes - data_start:,} bytes: the file is cut short")
    if dtype in DTYPES and end - start != DTYPES[dtype] * math.prod(shape):
        raise ValueError(f"{end - start} bytes for shape {list(shape)} of {dtype}")
    return Tensor(file, data_start + start, dtype, shape)


def _refuse_overlaps(header: Mapping[str, dict[str, Any]]) -> None:
    """Tensors that share bytes make a small file a large model."""
    places = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    for (_, end, name), (start, _, other) in pairwise(places):
        if start < end:
            raise ValueError(f"{name!r} and {other!r} share bytes")
