"""Parquet in and out: footers, exact row ranges, and objects that are encoded in memory and checked before
they leave.

Page checksums are written and verified everywhere. Reading keeps memory bounded by the rows asked for, not by
the size of a row group. This file decides neither names nor places of outputs, and knows nothing of tasks.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.storage.decoded_size import written_out_bytes
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
from rembert_ray.storage.memory_limit import limited_growth
from rembert_ray.storage.ranges import FileState, RangeReader, opened
from rembert_ray.storage.s3 import ObjectChangedError
from rembert_ray.storage.seal import MARKER, PLACEHOLDER, SEAL_KEY, seal_in_place

__all__ = [
    "content_digest",
    "encode_parquet",
    "footer_values",
    "open_parquet",
    "read_footer",
    "read_footer_values",
    "read_raw_footer",
    "read_rows",
]

FOOTER_PREFIX = "rembert_ray."
ROW_GROUP_BYTES = 64 * 1024**2
# Above this, columns are streamed with small reads instead of fetched whole ahead of time.
PREFETCH_BYTES = 256 * 1024**2
STREAM_BUFFER_BYTES = 4 * 1024**2
# Most footers are in the first of these bytes, at the end of the file.
TAIL_BYTES = 64 * 1024
LARGEST_FOOTER_BYTES = 256 * 1024**2
BATCH_ROWS = 1024
# A batch is smaller where the footer says that its rows are large; what it says may be wrong.
BATCH_BYTES = 64 * 1024**2
# A page of a few hundred bytes can decode to gigabytes: what a shard may hold before it is refused, and what may be
# allocated before it is known how much a batch holds.
LARGEST_TABLE_BYTES = 1024**3
LARGEST_GROWTH_BYTES = 4 * 1024**3
_RESTORE = "restore it, or plan again into a new output"
# What bytes that make no sense lead to, in pyarrow and on the way to it.
_OF_DATA = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, ArithmeticError)

Result = TypeVar("Result")


@contextmanager
def open_parquet(
    location: Location, *, planned: FileState | None = None, prefetch: bool = True
) -> Iterator[pq.ParquetFile]:
    """The Parquet file, its footer read, page checksums verified on reading; a context manager.

    With `prefetch`, the column chunks that a read needs are fetched ahead in few large requests; without, they are
    streamed. Raises what the filesystem and pyarrow raise: OSError, `pa.ArrowInvalid`; `ObjectChangedError` when it is
    not the `planned` file.
    """
    with opened(location, planned) as source:
        with pq.ParquetFile(
            source if isinstance(source, str) else pa.PythonFile(source, mode="r"),
            pre_buffer=prefetch and not location.is_local,
            buffer_size=0 if prefetch and not location.is_local else STREAM_BUFFER_BYTES,
            page_checksum_verification=True,
        ) as file:
            yield file


def read_footer(location: Location, planned: FileState | None = None) -> pq.FileMetaData:
    """Schema, row groups and key-values of a Parquet file, without its data.

    Raises `ShardError` when it is damaged, gone, no Parquet file or not the `planned` one, `StorageError` when the
    store does not answer.
    """

    def read() -> pq.FileMetaData:
        with open_parquet(location, planned=planned) as file:
            return file.metadata

    return _guarded(read, location, "the footer")


def read_raw_footer(location: Location, planned: FileState | None = None) -> bytes:
    """The footer in its own bytes, as a Parquet file without data, which `pq.read_metadata` takes: nothing is parsed.

    Raises like `read_footer`.
    """

    def read() -> bytes:
        with opened(location, planned) as source, _stream(source) as file:
            size_bytes = file.seek(0, io.SEEK_END)
            file.seek(max(0, size_bytes - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
            n_bytes = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < 12 or n_bytes > min(size_bytes - 4, LARGEST_FOOTER_BYTES):
                raise ShardError(f"{size_bytes:,} bytes that do not end as a Parquet file does")
            if n_bytes > len(tail):
                file.seek(size_bytes - n_bytes)
                tail = file.read(n_bytes)
            return bytes(tail[-4:] + tail[-n_bytes:])

    return _guarded(read, location, "the footer")


def _stream(source: str | RangeReader) -> RangeReader | io.FileIO:
    return Path(source).open("rb", buffering=0) if isinstance(source, str) else source


def read_footer_values(location: Location) -> dict[str, str]:
    """The footer's key-values that `encode_parquet` wrote, without their `rembert_ray.` prefix.

    Raises like `read_footer`.
    """
    return footer_values(read_footer(location))


def footer_values(metadata: pq.FileMetaData) -> dict[str, str]:
    """The same of a footer that is read already. UnicodeDecodeError (a ValueError) when it is damaged."""
    prefix = FOOTER_PREFIX.encode()
    values = (metadata.metadata or {}).items()
    return {k.removeprefix(prefix).decode(): v.decode() for k, v in values if k.startswith(prefix)}


def read_rows(
    location: Location,
    row_start: int,
    n_rows: int,
    columns: Sequence[str] | None = None,
    *,
    planned: FileState | None = None,
    budget_s: float = RETRY_BUDGET_S,
) -> pa.Table:
    """Rows `row_start` to `row_start + n_rows` of a Parquet file, exactly, in order, with `columns` in their order.

    Only the row groups that overlap are read, in batches of at most 1,024 rows of which only what is asked for is kept.
    Raises `ShardError`, with the file and the row range, when the data is the cause: damaged footer or page, file gone
    or not the `planned` one, a column that is missing, more than 1 GiB decoded. Raises `StorageError` when the store is
    the cause: no answer for `budget_s` seconds, or permission denied by an object store (credentials that expired would
    otherwise quarantine every shard).
    """

    def read() -> pa.Table:
        with limited_growth(LARGEST_GROWTH_BYTES):
            with open_parquet(location, planned=planned) as file:
                part = _overlapping(file.metadata, row_start, n_rows, columns)
                if part.n_bytes <= PREFETCH_BYTES or location.is_local:
                    return _slice_rows(file, part, n_rows, columns)
            with open_parquet(location, planned=planned, prefetch=False) as file:
                return _slice_rows(file, part, n_rows, columns)

    return _guarded(read, location, f"rows {row_start} to {row_start + n_rows}", budget_s)


def encode_parquet(table: pa.Table, footer: Mapping[str, str]) -> bytes:
    """The table as the bytes of a Parquet file, opened again and checked before they are returned.

    zstd, page checksums, page index, Arrow schema stored (so fixed-size lists and float16 come back as they
    were), row groups of about 64 MiB. `footer` becomes key-values under `rembert_ray.`, to which comes the file's
    `seal`. Raises `ShardError` when the check fails or pyarrow cannot write the table.
    """
    if odd := [key for key, value in footer.items() if MARKER.decode() in value]:
        raise ShardError(f"the {odd[0]} holds {MARKER.decode()!r}, which marks the seal of a file: rename it")
    target = io.BytesIO()
    sealed = {FOOTER_PREFIX + key: value for key, value in {**footer, SEAL_KEY: PLACEHOLDER}.items()}
    try:
        with pq.ParquetWriter(target, table.schema, **_writer_options(table.schema)) as writer:
            writer.write_table(table, row_group_size=_row_group_rows(table))
            writer.add_key_value_metadata(sealed)
    except pa.ArrowException as error:
        raise ShardError(f"cannot encode {table.num_rows} rows as Parquet: {error}") from error
    with target.getbuffer() as data:
        seal_in_place(data)
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


class _Part(NamedTuple):
    """The row groups that hold a range of rows.

    offset: rows to skip in the first of them. n_bytes: what they take when compressed. batch_rows: how many to read at
    once.
    """

    groups: list[int]
    offset: int
    n_bytes: int
    batch_rows: int


def _overlapping(metadata: pq.FileMetaData, row_start: int, n_rows: int, columns: Sequence[str] | None) -> _Part:
    if row_start < 0 or n_rows < 0 or row_start + n_rows > metadata.num_rows:
        raise ShardError(f"the file has {metadata.num_rows} rows: it is not the file that was planned")
    groups: list[int] = []
    offset, n_bytes, first_row, batch_rows = 0, 0, 0, BATCH_ROWS
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if first_row < row_start + n_rows and first_row + group.num_rows > row_start:
            offset = offset if groups else row_start - first_row
            groups.append(index)
            found = [group.column(i) for i in range(group.num_columns)]
            chunks = [chunk for chunk in found if columns is None or chunk.path_in_schema.split(".")[0] in columns]
            n_bytes += sum(chunk.total_compressed_size for chunk in chunks)
            decoded = max(1, sum(chunk.total_uncompressed_size for chunk in chunks))
            batch_rows = max(1, min(batch_rows, BATCH_BYTES * group.num_rows // decoded))
        first_row += group.num_rows
    return _Part(groups, offset, n_bytes, batch_rows)


def _slice_rows(file: pq.ParquetFile, part: _Part, n_rows: int, columns: Sequence[str] | None) -> pa.Table:
    schema = file.schema_arrow.remove_metadata()
    if columns is not None:
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise ShardError(f"no column {missing[0]!r}; the file has {', '.join(schema.names)}")
        schema = pa.schema([schema.field(name) for name in columns])
    kept: list[pa.RecordBatch] = []
    offset, n_kept, n_bytes = part.offset, 0, 0
    options = {"row_groups": part.groups, "columns": columns, "use_threads": False}
    for batch in file.iter_batches(part.batch_rows, **options) if part.groups else ():
        if n_kept == n_rows:
            break
        wanted = batch.slice(offset, n_rows - n_kept)
        offset = max(0, offset - batch.num_rows)
        if wanted.num_rows:
            kept.append(wanted.select(schema.names))
            n_kept += wanted.num_rows
            n_bytes += sum(written_out_bytes(column) for column in wanted.columns)
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
        raise ShardError(f"{where}: the file is gone: {_RESTORE}") from error
    except ObjectChangedError as error:
        raise ShardError(f"{where}: {error}: {_RESTORE}") from error
    except MemoryError as error:
        what = f"it decodes to more than {LARGEST_GROWTH_BYTES:,} bytes at once"
        raise ShardError(f"{where}: {what}: write it with smaller values, or smaller row groups") from error
    # ValueError and the like: names that are not UTF-8, numbers that are no sizes.
    except (pa.ArrowException, EOFError, ValueError, LookupError, ArithmeticError, *storage_errors()) as error:
        # Without an HTTP status an error of a remote store came from its client: no credentials, no route.
        is_data = isinstance(error, _OF_DATA) or http_status(error) is not None
        kind = ShardError if is_data and not is_transient(error) else StorageError
        raise kind(f"{where}: cannot be read: {type(error).__name__}: {error}") from error
