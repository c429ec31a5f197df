"""Writes a safetensors file one tensor at a time, so that no more than one of them is in memory.

The library's own `save` wants all of them at once. It knows nothing of names, formats or places.
Format: https://huggingface.co/docs/safetensors (8 bytes of little-endian length, a JSON header, the data).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ITEM_BYTES = {name: dtype.itemsize for dtype, name in DTYPES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor to be written: its safetensors type name, its shape, and how to get it."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> LazyTensor:
        """A tensor that is there already, on any device."""
        return cls(DTYPES[tensor.dtype], tuple(tensor.shape), lambda: tensor.detach().cpu())

    @property
    def n_bytes(self) -> int:
        """Size of its data."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def write_stream(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Write `tensors` by name, each read when its turn comes; the file must not be there yet.

    Raises:
        ValueError: a tensor is not of the type and shape that it was announced with.
    """
    # Wide types first: then every tensor begins at a multiple of its item size, as the library has it.
    names = sorted(tensors, key=lambda name: -ITEM_BYTES[tensors[name].dtype])
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].n_bytes
        header[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_content(name, tensors[name]))


def _content(name: str, announced: LazyTensor) -> memoryview:
    tensor = announced.read()
    if (DTYPES[tensor.dtype], tuple(tensor.shape)) != (announced.dtype, announced.shape):
        raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, announced was {announced}")
    return bytes_of(tensor).numpy().data


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, `[n_bytes]` of uint8; a view where the tensor is contiguous."""
    return tensor.contiguous().view(-1).view(torch.uint8)
