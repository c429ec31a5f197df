"""Parquet in and out: footers, exact row ranges, and objects that are encoded in memory and checked before
they leave.

Page checksums are written and verified everywhere. Reading keeps memory bounded by the rows asked for, not by
the size of a row group. This file decides neither names nor places of outputs, and knows nothing of tasks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.digest import content_digest
from rembert_ray.storage.filesystem import (
    RETRY_BUDGET_S,
    explain,
    http_status,
    is_transient,
    retry_transient,
    storage_errors,
)
from rembert_ray.storage.location import Location

__all__ = [
    "content_digest",
    "encode_parquet",
    "open_parquet",
    "read_footer",
    "read_footer_values",
    "read_rows",
]

FOOTER_PREFIX = "rembert_ray."
ROW_GROUP_BYTES = 64 * 1024**2
# Above this, columns are streamed with small reads instead of fetched whole ahead of time.
PREFETCH_BYTES = 256 * 1024**2
STREAM_BUFFER_BYTES = 4 * 1024**2
BATCH_ROWS = 1024
# A page of a few hundred bytes can decode to gigabytes: what a shard may hold before it is refused.
LARGEST_TABLE_BYTES = 4 * 1024**3

Result = TypeVar("Result")


def open_parquet(location: Location, *, prefetch: bool = True) -> pq.ParquetFile:
    """The Parquet file, its footer read, page checksums verified on reading. Close it (it is a context
    manager).

    With `prefetch`, the column chunks that a read needs are fetched ahead in few large requests; without,
    they are streamed. Raises what the filesystem and pyarrow raise: OSError, `pa.ArrowInvalid`.
    """
    source = location.path if location.is_local else pa.PythonFile(_RangeReader(location), mode="r")
    return pq.ParquetFile(
        source,
        pre_buffer=prefetch and not location.is_local,
        buffer_size=0 if prefetch and not location.is_local else STREAM_BUFFER_BYTES,
        page_checksum_verification=True,
    )


def read_footer(location: Location) -> pq.FileMetaData:
    """Schema, row groups and key-values of a Parquet file, without its data.

    Raises `ShardError` when it is damaged, gone or no Parquet file, `StorageError` when the store does not
    answer.
    """

    def read() -> pq.FileMetaData:
        with open_parquet(location) as file:
            return file.metadata

    return _guarded(read, location, "the footer")


def read_footer_values(location: Location) -> dict[str, str]:
    """The footer's key-values that `encode_parquet` wrote, without their `rembert_ray.` prefix.

    Raises like `read_footer`.
    """
    values = read_footer(location).metadata or {}
    prefix = FOOTER_PREFIX.encode()
    return {k.removeprefix(prefix).decode(): v.decode() for k, v in values.items() if k.startswith(prefix)}


def read_rows(
    location: Location,
    row_start: int,
    n_rows: int,
    columns: Sequence[str] | None = None,
    *,
    budget_s: float = RETRY_BUDGET_S,
) -> pa.Table:
    """Rows `row_start` to `row_start + n_rows` of a Parquet file, exactly, in order, with `columns` in their
    order.

    Only the row groups that overlap are read, in batches of 1,024 rows of which only what is asked for is
    kept. Raises `ShardError`, with the file and the row range, when the data is the cause: damaged footer or
    page, file gone or shorter than planned, a column that is missing, more than 4 GiB decoded. Raises
    `StorageError` when the store is the cause: no answer for `budget_s` seconds, or permission denied by an
    object store (credentials that expired would otherwise quarantine every shard).
    """

    def read() -> pa.Table:
        with open_parquet(location) as file:
            groups, offset, n_bytes = _overlapping(file.metadata, row_start, n_rows, columns)
            if n_bytes <= PREFETCH_BYTES or location.is_local:
                return _slice_rows(file, groups, offset, n_rows, columns)
        with open_parquet(location, prefetch=False) as file:
            return _slice_rows(file, groups, offset, n_rows, columns)

    return _guarded(read, location, f"rows {row_start} to {row_start + n_rows}", budget_s)


def encode_parquet(table: pa.Table, footer: Mapping[str, str]) -> bytes:
    """The table as the bytes of a Parquet file, opened again and checked before they are returned.

    zstd, page checksums, page index, Arrow schema stored (so fixed-size lists and float16 come back as they
    were), row groups of about 64 MiB. `footer` becomes key-values under `rembert_ray.`. Raises `ShardError`
    when the check fails or pyarrow cannot write the table.
    """
    target = io.BytesIO()
    try:
        with pq.ParquetWriter(target, table.schema, **_writer_options(table.schema)) as writer:
            writer.write_table(table, row_group_size=_row_group_rows(table))
            writer.add_key_value_metadata({FOOTER_PREFIX + key: value for key, value in footer.items()})
    except pa.ArrowException as error:
        raise ShardError(f"cannot encode {table.num_rows} rows as Parquet: {error}") from error
    _check_encoded(target, table)
    return target.getvalue()


def _writer_options(schema: pa.Schema) -> dict[str, Any]:
    # Dictionaries and min/max only cost time on vectors and scores.
    plain = [field.name for field in schema if not _holds_floats(field.type)]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "write_page_checksum": True,
        "write_page_index": True,
        "store_schema": True,
        "use_dictionary": plain,
        "write_statistics": plain,
    }


def _holds_floats(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def _row_group_rows(table: pa.Table) -> int:
    return max(1, int(ROW_GROUP_BYTES * table.num_rows / max(table.nbytes, 1))) if table.num_rows else 1


def _check_encoded(target: io.BytesIO, table: pa.Table) -> None:
    target.seek(0)
    with pq.ParquetFile(pa.PythonFile(target, mode="r")) as file:
        if file.metadata.num_rows != table.num_rows:
            raise ShardError(f"encoded {file.metadata.num_rows} rows instead of {table.num_rows}")
        if not file.schema_arrow.equals(table.schema, check_metadata=False):
            raise ShardError(f"Parquet changed the schema to {file.schema_arrow} from {table.schema}")


def _overlapping(
    metadata: pq.FileMetaData, row_start: int, n_rows: int, columns: Sequence[str] | None
) -> tuple[list[int], int, int]:
    """The row groups that hold the range, the rows to skip in the first, and the bytes they take when
    compressed."""
    if row_start < 0 or n_rows < 0 or row_start + n_rows > metadata.num_rows:
        raise ShardError(f"the file has {metadata.num_rows} rows: it is not the file that was planned")
    groups: list[int] = []
    offset, n_bytes, first_row = 0, 0, 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if first_row < row_start + n_rows and first_row + group.num_rows > row_start:
            offset = offset if groups else row_start - first_row
            groups.append(index)
            chunks = (group.column(i) for i in range(group.num_columns))
            n_bytes += sum(
                chunk.total_compressed_size
                for chunk in chunks
                if columns is None or chunk.path_in_schema.split(".")[0] in columns
            )
        first_row += group.num_rows
    return groups, offset, n_bytes


def _slice_rows(
    file: pq.ParquetFile, groups: list[int], offset: int, n_rows: int, columns: Sequence[str] | None
) -> pa.Table:
    schema = file.schema_arrow.remove_metadata()
    if columns is not None:
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise ShardError(f"no column {missing[0]!r}; the file has {', '.join(schema.names)}")
        schema = pa.schema([schema.field(name) for name in columns])
    kept: list[pa.RecordBatch] = []
    n_kept, n_bytes = 0, 0
    batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False) if groups else ()
    for batch in batches:
        if n_kept == n_rows:
            break
        wanted = batch.slice(offset, n_rows - n_kept)
        offset = max(0, offset - batch.num_rows)
        if wanted.num_rows:
            kept.append(wanted.select(schema.names))
            n_kept += wanted.num_rows
            n_bytes += wanted.nbytes
        if n_bytes > LARGEST_TABLE_BYTES:
            raise ShardError(f"{n_kept} rows decode to more than {LARGEST_TABLE_BYTES} bytes: use smaller shards")
    if n_kept != n_rows:
        raise ShardError(f"the pages hold {n_kept} rows where the footer promises {n_rows}")
    return pa.Table.from_batches([pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in kept], schema)


def _guarded(read: Callable[[], Result], location: Location, part: str, budget_s: float = RETRY_BUDGET_S) -> Result:
    where = f"{location}, {part}"
    try:
        return retry_transient(read, f"reading {where}", budget_s)
    except ShardError as error:
        raise ShardError(f"{where}: {error}") from error
    except PermissionError as error:
        kind = ShardError if location.is_local else StorageError
        raise kind(f"cannot read {explain(where, error)}") from error
    except FileNotFoundError as error:
        raise ShardError(f"{where}: the file is gone: restore it, or plan again into a new output") from error
    except (pa.ArrowException, EOFError, *storage_errors()) as error:
        # Without an HTTP status an error of a remote store came from its client: no credentials, no route.
        is_data = isinstance(error, (pa.ArrowException, OSError, EOFError)) or http_status(error) is not None
        kind = ShardError if is_data and not is_transient(error) else StorageError
        raise kind(f"{where}: cannot be read: {type(error).__name__}: {error}") from error


class _RangeReader(io.RawIOBase):
    """A remote file as pyarrow reads it: each read is one ranged request with a deadline of its own."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._position = 0
        if location.is_s3:
            self._size_bytes = int(s3.head(location.path)["ContentLength"])
        else:
            self._size_bytes = int(location.filesystem.size(location.path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self._size_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._size_bytes if size < 0 else min(self._position + size, self._size_bytes)
        start, self._position = self._position, max(stop, self._position)
        if stop <= start:
            return b""
        path = self._location.path
        if self._location.is_s3:
            return s3.read_range(path, start, stop)
        return bytes(self._location.filesystem.cat_file(path, start=start, end=stop))
