"""`rembert-ray convert`: a checkpoint of an older release becomes a safetensors folder that this package loads.

The story: find the weights, unpack them in a process of its own, give them today's names, check that nothing is
missing, write. It must not open a pickle or an h5 file itself, and never writes over weights.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from rembert_ray.convert.isolation import unpack_isolated
from rembert_ray.convert.names import Origin, Translation, class_name, find_head, new_inventory, translate
from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.models.config import CONFIG_FILE, AutoConfig, read_config
from rembert_ray.models.inventory import (
    INDEX_FILE,
    OLD_WEIGHT_FILES,
    WEIGHTS_FILE,
    Tensor,
    files_of_index,
    read_inventory,
)
from rembert_ray.models.safetensors_stream import LazyTensor, bytes_of
from rembert_ray.models.weight_map import BASE
from rembert_ray.models.weights_file import DTYPES, read_tensors, write_file
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import Location, exists, locate, read_bytes
from rembert_ray.storage.stream import download
from rembert_ray.tokenizers.tokenizer_files import write_files

SAFETENSORS = (INDEX_FILE, WEIGHTS_FILE)
# Copied as they are: the vocabularies of both families, and what says how they are used.
COPIED_FILES = (
    *("sentencepiece.model", "tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"),
)
VOCABULARIES = COPIED_FILES[:3]


@dataclass(frozen=True)
class Conversion:
    """What was done.

    model_class: Hugging Face's name of the class that the new folder is of.
    dropped: names of the old files that have no place in the new one, with the reason.
    """

    source: str
    target: str
    model_class: str
    n_tensors: int
    n_bytes: int
    dropped: dict[str, str]
    copied_files: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What to tell the user, with the next command last."""
        size = f"{self.n_tensors} tensors, {self.n_bytes:,} bytes"
        without = "" if set(VOCABULARIES) & set(self.copied_files) else f"; no vocabulary in {self.source}: add it"
        return [
            f"{self.target}: {self.model_class}, {size}",
            f"copied: {', '.join(self.copied_files) or 'nothing'}{without}",
            *(f"left out: {name} ({reason})" for name, reason in self.dropped.items()),
            f"next: rembert-ray plan MANIFEST --set model={self.target}",
        ]


def convert(source: str, target: str) -> Conversion:
    """Convert the checkpoint folder `source` and write the folder `target`; both are paths or fsspec URLs.

    `source` holds `config.json` and `pytorch_model.bin`, `tf_model.h5` (or the parts of either with their index), or a
    `model.safetensors` with names of older releases. Weights keep their type. In memory there is one tensor at a time,
    two where two copies are compared; on disk a second copy of the weights, in the folder for temporary files.

    Raises:
        UnusableError: no such checkpoint, damaged or hostile files, names or shapes that are missing, unknown or
            wrong, a target that holds weights.
        StorageError: a file cannot be read or written.
    """
    old, new = locate(source), locate(target)
    try:
        return _convert(old, new)
    except storage_errors() as error:
        raise StorageError(str(explain(f"{old} -> {new}", error))) from error


def _convert(old: Location, new: Location) -> Conversion:
    _check_target(new)
    config = AutoConfig.from_pretrained(old)
    with tempfile.TemporaryDirectory(prefix="rembert-ray-") as scratch:
        files = _weight_files(old)
        folder = _unpack(old, files, Path(scratch))
        stored = read_inventory(folder)
        translation = translate(stored, config)
        today = new_inventory(stored, translation.origins)
        head = find_head(today, config, str(old))
        _check_types(today, str(old))
        _check_copies(folder, stored, translation, str(old))
        prefix = f"{config.base_model_prefix}." if head == BASE else ""
        origins = {name.removeprefix(prefix): origin for name, origin in translation.origins.items()}
        if files[0] in SAFETENSORS and origins == {name: Origin(name) for name in stored}:
            raise UnusableError(Fault(str(old), f"nothing to convert: {WEIGHTS_FILE} is as it should be", "use it"))
        tensors = _lazy_tensors(folder, stored, origins)
        write_file(new.child(WEIGHTS_FILE), tensors)
    copied = _copy_files(old, new, class_name(config, head))
    return Conversion(
        str(old),
        str(new),
        class_name(config, head),
        n_tensors=len(tensors),
        n_bytes=sum(tensor.n_bytes for tensor in tensors.values()),
        dropped={stored: f"a copy of {name}" for stored, name in translation.copies.items()} | translation.dropped,
        copied_files=copied,
    )


def _check_target(new: Location) -> None:
    held = [file for file in (*SAFETENSORS, *OLD_WEIGHT_FILES) if exists(new.child(file))]
    if held:
        raise UnusableError(Fault(str(new), f"already holds {', '.join(held)}", "name a new folder, or empty it"))


def _weight_files(old: Location) -> list[str]:
    """Names of the files with the weights, behind their index if they have one."""
    known = (*SAFETENSORS, *OLD_WEIGHT_FILES)
    held = next((file for file in known if exists(old.child(file))), None)
    if held is None:
        raise UnusableError(
            Fault(str(old), f"holds no weights: none of {', '.join(known)}", "copy the whole checkpoint")
        )
    return [held, *files_of_index(old.child(held))] if held.endswith(".json") else [held]


def _unpack(old: Location, files: list[str], scratch: Path) -> Location:
    """The folder with the weights as safetensors: the old one if it is such a folder at hand, else `scratch`."""
    is_safetensors = files[0] in SAFETENSORS
    if is_safetensors and old.is_local:
        return old
    local = [_fetch(old.child(file), scratch) for file in files]
    if not is_safetensors:
        _unpack_old([file for file in local if file.suffix != ".json"], old, scratch)
    return locate(str(scratch))


def _unpack_old(files: list[Path], old: Location, scratch: Path) -> None:
    try:
        unpack_isolated(files, scratch / WEIGHTS_FILE)
    except UnusableError as error:
        # A person knows the folder that they named, not its temporary copy.
        faults = [Fault(fault.where.replace(str(scratch), str(old)), fault.what, fault.fix) for fault in error.faults]
        raise UnusableError(faults) from error


def _fetch(file: Location, scratch: Path) -> Path:
    if file.is_local:
        return Path(file.path)
    copy = scratch / file.name
    download(file, copy)
    return copy


def _check_types(inventory: Mapping[str, Tensor], where: str) -> None:
    odd = [f"{name} ({tensor.dtype})" for name, tensor in inventory.items() if tensor.dtype not in DTYPES]
    if odd:
        raise UnusableError(Fault(where, f"not floating point: {', '.join(odd)}", f"known types: {', '.join(DTYPES)}"))


def _check_copies(folder: Location, stored: Mapping[str, Tensor], translation: Translation, where: str) -> None:
    different = []
    for copy, name in translation.copies.items():
        original = translation.origins[name].stored
        first, second = _read(folder, stored, original), _read(folder, stored, copy)
        # Bit for bit, because NaN is not equal to itself.
        if first.shape != second.shape or not torch.equal(bytes_of(first), bytes_of(second)):
            different.append(Fault(where, f"{copy} and {original} should be one tensor, but differ"))
    if different:
        fix = "if the model was trained untied, set tie_word_embeddings to false in config.json"
        raise UnusableError([Fault(fault.where, fault.what, fix) for fault in different])


def _lazy_tensors(
    folder: Location, stored: Mapping[str, Tensor], origins: Mapping[str, Origin]
) -> dict[str, LazyTensor]:
    return {
        name: LazyTensor(tensor.dtype, tensor.shape, partial(_read_origin, folder, stored, origins[name]))
        for name, tensor in new_inventory(stored, origins).items()
    }


def _read_origin(folder: Location, stored: Mapping[str, Tensor], origin: Origin) -> torch.Tensor:
    tensor = _read(folder, stored, origin.stored)
    return tensor.T if origin.is_transposed else tensor


def _read(folder: Location, stored: Mapping[str, Tensor], name: str) -> torch.Tensor:
    tensor = torch.empty(stored[name].shape, dtype=DTYPES[stored[name].dtype])
    read_tensors(folder, stored, {name: tensor})
    return tensor


def _copy_files(old: Location, new: Location, model_class: str) -> tuple[str, ...]:
    copied = {file: read_bytes(old.child(file)) for file in COPIED_FILES if exists(old.child(file))}
    config = read_config(old) | {"architectures": [model_class]}
    write_files(new, {CONFIG_FILE: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()} | copied)
    return tuple(copied)
