"""One output object, read whole and checked against itself and the plan: the unit of `rembert-ray verify`.

The seal comes first: what it covers needs no parser to be found damaged, and what is damaged is not parsed. The other
checks are for objects that are whole but not what they should be. This file changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.commit import Part, other_identity
from rembert_ray.storage.digest import ContentDigest
from rembert_ray.storage.filesystem import explain, retry_transient, storage_errors
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.storage.parquet import footer_values
from rembert_ray.storage.seal import broken_seal

_PARQUET_END = b"PAR1"
_BATCH_ROWS = 8192


Kind = Literal["good", "missing", "truncated", "altered", "duplicated", "foreign"]


@dataclass(frozen=True)
class Examined:
    """What an object turned out to be; `fault` is "" for a good one, and then the `schema` is known."""

    kind: Kind
    fault: str = ""
    n_bytes: int = 0
    n_rows: int = 0
    schema: pa.Schema | None = None


def examine(location: Location, part: Part | None) -> Examined:
    """Read an object and compare it with the `part` that it should be (None: nobody knows).

    Looks at the seal, the footer's identity, the number of rows, every page and its checksum, the digest of the
    content, and on S3 at the object's metadata. Memory: the object, and `_BATCH_ROWS` decoded rows. Raises
    `StorageError` when the store refuses or gives out.
    """
    try:
        data = read_bytes(location)
        metadata = retry_transient(lambda: s3.head(location.path), f"looking at {location}") if location.is_s3 else {}
    except FileNotFoundError:
        return Examined("missing", "it went away while the output was looked at")
    except storage_errors() as error:
        raise StorageError(f"cannot read {explain(str(location), error)}") from error
    if len(data) < 2 * len(_PARQUET_END) or not data.endswith(_PARQUET_END):
        return Examined("truncated", f"its {len(data):,} bytes do not end as a Parquet file does", len(data))
    if fault := broken_seal(data):
        return Examined("altered", fault, len(data))
    try:
        return _examine_content(data, part, metadata.get("Metadata", {}))
    except ShardError as error:
        return Examined("altered", str(error), len(data))
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        return Examined("altered", f"its seal holds, but {type(error).__name__}: {error}", len(data))


def _examine_content(data: bytes, part: Part | None, metadata: dict[str, str]) -> Examined:
    """The checks of an object whose seal holds. Raises what pyarrow raises, `ShardError` with what is wrong."""
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        values = footer_values(file.metadata)
        if part is not None and (wrong := other_identity(values, part)):
            kind: Kind = "duplicated" if values.get("plan_id") == part.plan_id else "foreign"
            return Examined(kind, f"its footer says {', '.join(wrong)}", len(data))
        n_rows = file.metadata.num_rows
        if values.get("n_rows") != str(n_rows):
            raise ShardError(f"it has {n_rows:,} rows, its footer says {values.get('n_rows')}")
        schema = file.schema_arrow.remove_metadata()
        digest = ContentDigest(schema)
        n_read = 0
        for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
            digest.add(pa.Table.from_batches([batch]))
            n_read += batch.num_rows
    if n_read != n_rows:
        raise ShardError(f"its pages hold {n_read:,} rows of {n_rows:,}")
    if digest.hexdigest() != values.get("content_digest"):
        raise ShardError("its rows are not those that its footer has the digest of")
    said = {"sha256": hashlib.sha256(data).hexdigest(), "rows": str(n_rows), "attempt": values.get("attempt", "")}
    # Copies made by other tools may have lost the metadata, which is no damage; they cannot have another one.
    if metadata and (wrong := [key for key, value in said.items() if metadata.get(key, value) != value]):
        raise ShardError(f"the metadata of the object disagree in {', '.join(wrong)}")
    return Examined("good", "", len(data), n_rows, schema)
