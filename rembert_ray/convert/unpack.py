"""Reads `pytorch_model.bin` and `tf_model.h5` files and writes what they hold as one plain safetensors file.

It is the program of a process of its own (see `isolation`), the only place that opens a pickle, and gets no
credentials. It keeps the names of the files as they are and must not judge what they mean.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.safetensors_stream import DTYPES, LazyTensor, write_stream

OLDEST_TORCH = (2, 10)
ASK_FOR_SAFETENSORS = "ask its owner for model.safetensors"
DOWNLOAD_AGAIN = "download it again"


def main(arguments: list[str]) -> int:
    """Unpack `arguments[1:]` into `arguments[0]`; faults go to standard output as JSON, with exit code 2."""
    try:
        unpack([Path(file) for file in arguments[1:]], Path(arguments[0]))
    except UnusableError as error:
        print(json.dumps([astuple(fault) for fault in error.faults]))
        return error.exit_code
    return 0


def unpack(files: list[Path], target: Path) -> None:
    """Write all tensors of `files` (the parts of one checkpoint) to the safetensors file `target`.

    At most one tensor is in memory at a time, but for a `.bin` of torch before 1.6, which cannot be mapped.

    Raises:
        UnusableError: a file is damaged, holds more than tensors, or a name is in two files.
    """
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        for name, tensor in _read_h5(file) if file.suffix == ".h5" else _read_bin(file):
            if name in tensors:
                raise UnusableError(Fault(str(file), f"{name} is also in another file of the checkpoint"))
            tensors[name] = tensor
    write_stream(target, tensors)


def check_torch(version: str) -> None:
    """Raise `UnusableError` for a torch whose `weights_only=True` can be made to run code of the file.

    CVE-2025-32434 (before 2.6) and CVE-2026-24747 (before 2.10).
    """
    release = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if release < OLDEST_TORCH:
        what = "is not safe to open pickles with (CVE-2025-32434, CVE-2026-24747)"
        raise UnusableError(Fault(f"torch {version}", what, "install torch 2.10 or later"))


def _read_bin(file: Path) -> Iterator[tuple[str, LazyTensor]]:
    check_torch(torch.__version__)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        # torch's own words advise to load the file without protection: only what the file refers to is taken.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        refers = f" (it refers to {found[1]})" if found else ""
        what = f"is damaged or holds more than tensors{refers}; nothing of it was run"
        raise UnusableError(Fault(str(file), what, f"{DOWNLOAD_AGAIN}, or {ASK_FOR_SAFETENSORS}")) from error
    except (OSError, EOFError, KeyError, ValueError, RuntimeError) as error:
        what = f"is not a readable PyTorch file: {type(error).__name__}: {error}"
        raise UnusableError(Fault(str(file), what, DOWNLOAD_AGAIN)) from error
    if not isinstance(content, dict):
        what = f"holds a {type(content).__name__}, not names with tensors"
        raise UnusableError(Fault(str(file), what, ASK_FOR_SAFETENSORS))
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"has a {type(value).__name__} under {name!r}: a training state, not the weights of a model"
            raise UnusableError(Fault(str(file), what, "save its `state_dict` alone"))
        if value.layout != torch.strided or value.dtype not in DTYPES:
            raise UnusableError(Fault(str(file), f"{name} is a tensor of {value.dtype} {value.layout}: not supported"))
        yield name, LazyTensor(DTYPES[value.dtype], tuple(value.shape), value.detach)


def _read_h5(file: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        what, fix = "h5py is not installed", 'pip install "rembert-ray[tf]"'
        raise UnusableError(Fault(str(file), what, fix)) from error
    try:
        stream = h5py.File(file, "r")
    except OSError as error:
        raise UnusableError(Fault(str(file), f"is not a readable HDF5 file: {error}", DOWNLOAD_AGAIN)) from error
    datasets: dict[str, Any] = {}
    stream.visititems(lambda name, item: datasets.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    for name, dataset in datasets.items():
        # Both kinds take their bytes from files elsewhere on this machine.
        if dataset.external or dataset.is_virtual:
            raise UnusableError(Fault(str(file), f"{name} lies outside of the file", ASK_FOR_SAFETENSORS))
        dtype = getattr(torch, dataset.dtype.name, None)
        if dtype not in DTYPES:
            raise UnusableError(Fault(str(file), f"{name} has the type {dataset.dtype}: not supported"))
        yield name, LazyTensor(DTYPES[dtype], dataset.shape, partial(_read_dataset, dataset))


def _read_dataset(dataset: Any) -> Tensor:
    array = np.asarray(dataset[()])
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
