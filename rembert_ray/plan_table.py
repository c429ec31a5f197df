"""The plan as a value: its tables, its shards, and its stored form.

Format 2 is one Parquet table, readable by any tool: one line per shard, with the file that it is cut from (its
columns repeat, which costs little once compressed), ordered by file and row. A file without rows has a line whose
`shard` is null; so has a refused file, whose `refused` says why. The footer holds, under `rembert_ray.`:
`plan_format`, `plan_id`, `fingerprint` and `record` as JSON, and `kept_schema`, the Arrow schema of the kept columns as
base64 of its IPC message. Its seal covers it all.

It must not touch storage, nor import torch or ray.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.fingerprint import Fingerprint, canonical_json
from rembert_ray.storage.parquet import encode_parquet, footer_values
from rembert_ray.storage.ranges import FileState
from rembert_ray.storage.seal import broken_seal

PLAN_FORMAT = 2

SHARDS_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("file", pa.int32()),
        ("row_start", pa.int64()),
        ("n_rows", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
FILES_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("file_rows", pa.int64()),
        ("partition", pa.map_(pa.string(), pa.string())),
        ("refused", pa.string()),
    ]
)

_SHARDS_AT_ONCE = 8192


@dataclass(frozen=True)
class Shard:
    """One line of the plan: rows `row_start` to `row_start + n_rows` of one file.

    `partition` holds the kept columns that are not in the file but in its Hive path: each is one value for all
    rows (None is null). `size_bytes` and `version` are those of the file that was planned, as `FileInfo` has them;
    None and "" where they are not known.
    """

    index: int
    url: str
    row_start: int
    n_rows: int
    partition: dict[str, str | None]
    plan_id: str
    size_bytes: int | None = None
    version: str = ""

    @property
    def planned(self) -> FileState | None:
        """The file's size and version when the plan was made, None when they are not known."""
        return None if self.size_bytes is None else (self.size_bytes, self.version)


@dataclass(frozen=True, eq=False)
class Plan:
    """Shards, the files that they are cut from, and what the results depend on. Compare plans by `plan_id`.

    `shards` has the columns of `SHARDS_SCHEMA` (line i is shard i, in the order of files and rows), `files` those
    of `FILES_SCHEMA` (also files without rows, and refused ones, whose `file_rows` is null), `schema` the kept columns,
    partition keys included. `record` is the manifest as it was resolved, for the reader; it is no part of the identity.
    """

    shards: pa.Table
    files: pa.Table
    schema: pa.Schema
    fingerprint: Fingerprint
    plan_id: str
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        shards: pa.Table,
        files: pa.Table,
        schema: pa.Schema,
        fingerprint: Fingerprint,
        record: Mapping[str, Any],
    ) -> Plan:
        """A new plan; its `plan_id` is computed."""
        return cls(shards, files, schema, fingerprint, _digest_plan(shards, files, fingerprint), record)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return int(self.shards.num_rows)

    @property
    def n_rows(self) -> int:
        """Number of rows of all shards, which is that of all files that are not refused."""
        return int(pc.sum(self.shards["n_rows"]).as_py() or 0)

    @property
    def refused(self) -> list[tuple[int, str, str]]:
        """The files that are set aside: (number in `files`, URL, reason), in the order of the listing."""
        numbers = np.flatnonzero(pc.is_valid(self.files["refused"]).to_numpy())
        lines = self.files.select(["url", "refused"]).take(pa.array(numbers)).to_pylist()
        return [(int(n), line["url"], line["refused"]) for n, line in zip(numbers, lines, strict=True)]

    def shard(self, index: int) -> Shard:
        """Shard `index`; IndexError when there is none."""
        if not 0 <= index < self.n_shards:
            raise IndexError(f"shard {index} of {self.n_shards}")
        return next(self.iter_shards(np.array([index], dtype=np.int64)))

    def iter_shards(self, missing: npt.NDArray[np.int64] | None = None) -> Iterator[Shard]:
        """The shards with these indices, in this order; all of them without an argument.

        Memory does not grow with their number. IndexError for an index that is not in the plan.
        """
        indices = np.arange(self.n_shards, dtype=np.int64) if missing is None else np.asarray(missing, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= self.n_shards):
            raise IndexError(f"shards {indices.min()} to {indices.max()} of {self.n_shards}")
        for start in range(0, len(indices), _SHARDS_AT_ONCE):
            lines = self.shards.take(pa.array(indices[start : start + _SHARDS_AT_ONCE]))
            files = self.files.select(["url", "partition", "size_bytes", "version"]).take(lines["file"])
            for line, file in zip(lines.to_pylist(), files.to_pylist(), strict=True):
                yield Shard(
                    index=line["shard"],
                    url=file["url"],
                    row_start=line["row_start"],
                    n_rows=line["n_rows"],
                    partition=dict(file["partition"]),
                    plan_id=self.plan_id,
                    size_bytes=file["size_bytes"],
                    version=file["version"],
                )

    def file_states(self) -> dict[str, FileState]:
        """URL -> (size in bytes, version) of every input file, as they were when the plan was made."""
        columns = (self.files[name].to_pylist() for name in ("url", "size_bytes", "version"))
        return {url: (n_bytes, version) for url, n_bytes, version in zip(*columns, strict=True)}

    def to_bytes(self) -> bytes:
        """The plan as one Parquet object of format 2."""
        n_files = self.files.num_rows
        empty = np.setdiff1d(np.arange(n_files, dtype=np.int32), self.shards["file"].to_numpy())
        without_rows = pa.table(
            {
                "shard": pa.nulls(len(empty), pa.int64()),
                "file": pa.array(empty, pa.int32()),
                "row_start": pa.array(np.zeros(len(empty), np.int64)),
                "n_rows": pa.array(np.zeros(len(empty), np.int32)),
                "bytes": pa.array(np.zeros(len(empty), np.int64)),
            },
            schema=SHARDS_SCHEMA,
        )
        lines = pa.concat_tables([self.shards, without_rows])
        lines = lines.sort_by([("file", "ascending"), ("row_start", "ascending")])
        files = self.files.take(lines["file"])
        for name in FILES_SCHEMA.names:
            lines = lines.append_column(FILES_SCHEMA.field(name), files[name])
        footer = {
            "plan_format": str(PLAN_FORMAT),
            "plan_id": self.plan_id,
            "fingerprint": canonical_json(dict(self.fingerprint.fields)),
            "record": canonical_json(dict(self.record)),
            "kept_schema": base64.b64encode(self.schema.serialize().to_pybytes()).decode(),
        }
        return encode_parquet(lines, footer)

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "plan") -> Plan:
        """The plan that `to_bytes` wrote.

        Raises `UnusableError` when the bytes are damaged, are no plan, or have a format that this version does not
        know; `where` is the place for its message.
        """
        fix = "choose a new output.path"
        try:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
                values = footer_values(file.metadata)
                stored_format = values.get("plan_format")
                if stored_format != str(PLAN_FORMAT):
                    what = f"a plan of format {stored_format}, this version writes {PLAN_FORMAT}"
                    raise UnusableError(Fault(where, what, f"use the version that wrote it, or {fix}"))
                if fault := broken_seal(data):
                    raise ValueError(fault)
                lines = file.read().combine_chunks()
                kept = base64.b64decode(values["kept_schema"])
                return cls(
                    shards=_shards_of(lines),
                    files=_files_of(lines),
                    schema=pa.ipc.read_schema(pa.py_buffer(kept)),
                    fingerprint=Fingerprint(json.loads(values["fingerprint"])),
                    plan_id=values["plan_id"],
                    record=json.loads(values["record"]),
                )
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            what = f"the stored plan cannot be read: {type(error).__name__}: {error}"
            raise UnusableError(Fault(where, what, f"restore it from a backup, or {fix}")) from error


def _digest_plan(shards: pa.Table, files: pa.Table, fingerprint: Fingerprint) -> str:
    """sha256 over everything that matters. Types of kept columns follow from the files' versions."""
    digest = hashlib.sha256(canonical_json([PLAN_FORMAT, dict(fingerprint.fields)]).encode())
    for name in SHARDS_SCHEMA.names:
        digest.update(shards[name].to_numpy().astype("<i8").tobytes())
    for name in FILES_SCHEMA.names:
        digest.update(canonical_json(files[name].to_pylist()).encode())
    return digest.hexdigest()


def _shards_of(lines: pa.Table) -> pa.Table:
    shards = lines.select(SHARDS_SCHEMA.names).filter(pc.is_valid(lines["shard"])).cast(SHARDS_SCHEMA)
    expected = np.arange(shards.num_rows)
    if not np.array_equal(shards["shard"].to_numpy(), expected):
        raise ValueError("its shards are not numbered 0, 1, 2, ...")
    return shards.combine_chunks()


def _files_of(lines: pa.Table) -> pa.Table:
    numbers = lines["file"].to_numpy()
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    if not np.array_equal(numbers[firsts], np.arange(len(firsts))):
        raise ValueError("its files are not numbered 0, 1, 2, ...")
    return lines.select(FILES_SCHEMA.names).take(pa.array(firsts)).cast(FILES_SCHEMA).combine_chunks()
