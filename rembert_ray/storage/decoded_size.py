"""How many bytes a column holds once nothing in it is shared. It reads nothing and decides no limit."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def written_out_bytes(column: pa.Array) -> int:
    """What the values take without a dictionary, or views, that may hold each of them once for many rows."""
    kind = column.type
    if not _may_share(kind):
        return int(column.nbytes)
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        return int(pc.sum(lengths).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(written_out_bytes, column.flatten()))
    if pa.types.is_map(kind):
        first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
        return written_out_bytes(column.values.slice(first, last - first))
    if kind.num_fields:
        return written_out_bytes(column.flatten())
    return int(column.cast(pa.large_binary()).nbytes)


def _may_share(kind: pa.DataType) -> bool:
    is_one = pa.types.is_dictionary(kind) or pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return is_one or any(_may_share(kind.field(index).type) for index in range(kind.num_fields))
