"""A digest of what an Arrow table says, whatever its chunks, slices and padding bytes look like.

Two attempts at one shard hold the same content exactly when their digests are equal. Bytes under a null do
not count, nor does the schema's metadata. Never a way to name a file: compression and versions of writers do
not count either.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def content_digest(table: pa.Table) -> str:
    """sha256 (64 hex digits) over the names, types and values of a table, in row order.

    Float values count by their bits. Raises TypeError for a type that has no canonical bytes here.
    """
    digest = ContentDigest(table.schema)
    digest.add(table)
    return digest.hexdigest()


class ContentDigest:
    """The `content_digest` of a table that comes in pieces, however it is cut."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._n_rows = 0
        self._nodes = [_Node() for _ in schema]

    def add(self, piece: pa.Table) -> None:
        """Take the next rows. Raises like `content_digest`."""
        self._n_rows += piece.num_rows
        for node, column in zip(self._nodes, piece.columns, strict=True):
            for chunk in column.chunks:
                node.add(chunk)

    def hexdigest(self) -> str:
        """64 hex digits for all that was added."""
        total = hashlib.sha256(str(self._n_rows).encode())
        for field, node in zip(self._schema, self._nodes, strict=True):
            total.update(f"\0{field.name}\0{_type_word(field.type)}\0".encode())
            total.update(node.digest())
        return total.hexdigest()


class _Node:
    """Running digests of one column or nested child: where its nulls are, its lengths, values and children.

    They are kept apart so that chunks can be added one after the other without joining them first.
    """

    def __init__(self) -> None:
        self._n_rows = 0
        self._nulls = hashlib.sha256()
        self._values = hashlib.sha256()
        self._text = hashlib.sha256()
        self._children: list[_Node] = []

    def add(self, array: Any) -> None:
        """Take the next chunk."""
        array = _plain(array)
        n_rows = len(array)
        if array.null_count:
            positions = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
            self._nulls.update((positions.astype("<i8") + self._n_rows).tobytes())
            array = array.drop_null()
        self._n_rows += n_rows
        kind = array.type
        if pa.types.is_struct(kind):
            self._add_children(array.flatten())
        elif pa.types.is_fixed_size_list(kind):
            self._add_children([array.flatten()])
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._values.update(_int64_bytes(pc.list_value_length(array)))
            self._add_children([array.flatten()])
        elif pa.types.is_large_binary(kind):
            self._add_bytes(array)
        elif not pa.types.is_null(kind):
            self._values.update(_fixed_width_bytes(array))

    def digest(self) -> bytes:
        """The digest of all that was added."""
        total = hashlib.sha256(str(self._n_rows).encode())
        total.update(self._nulls.digest() + self._values.digest() + self._text.digest())
        for child in self._children:
            total.update(child.digest())
        return total.digest()

    def _add_bytes(self, array: Any) -> None:
        # Lengths and bytes must not mix in one stream: ["ab", "c"] is not ["a", "bc"].
        self._values.update(_int64_bytes(pc.binary_length(array)))
        _, offsets, data = array.buffers()
        if len(array) and data is not None:
            bounds = np.frombuffer(offsets, "<i8")
            start, stop = int(bounds[array.offset]), int(bounds[array.offset + len(array)])
            self._text.update(memoryview(data)[start:stop])

    def _add_children(self, arrays: list[Any]) -> None:
        while len(self._children) < len(arrays):
            self._children.append(_Node())
        for child, array in zip(self._children, arrays, strict=True):
            child.add(array)


def _plain(array: Any) -> Any:
    """The same values in one of the few layouts that `_Node` knows."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_decimal(kind):
        array = array.view(pa.binary(kind.byte_width))
    if pa.types.is_map(kind):
        return array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if _is_text(array.type):
        return array.cast(pa.large_binary())
    return array


def _type_word(kind: pa.DataType) -> str:
    # Parquet renames the child of a list from `item` to `element`: the name says nothing.
    if pa.types.is_fixed_size_list(kind):
        return f"list[{kind.list_size}]<{_type_word(kind.value_type)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_type_word(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_type_word(field.type)}' for field in kind)}>"
    return str(kind)


def _is_text(kind: pa.DataType) -> bool:
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(check(kind) for check in checks)


def _int64_bytes(array: Any) -> bytes:
    return bytes(array.to_numpy(zero_copy_only=False).astype("<i8").tobytes())


def _fixed_width_bytes(array: Any) -> Any:
    kind = array.type
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise TypeError(f"no content digest for the type {kind}")
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).view(np.uint8)
