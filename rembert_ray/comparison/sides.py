"""One of the two outputs of a comparison: its plan, its parts, and what the rows of a part came to.

It does not know the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.plan import Plan, require_plan
from rembert_ray.report.sample_view import kept_names, task_of
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.listing import input_root
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.tasks.base import Outcome, Task

Long = NDArray[np.int64]
LONGEST_OUTCOME = 80
DIGEST = "\x00"
"""What an outcome begins with that is a digest of a longer one."""


@dataclass(frozen=True)
class Rows:
    """Rows of an output, in columns: where they are, which have an error, and what they came to, by head.

    `key` is there when it was asked for. `is_again`: they were given before, and come with their vectors now.
    """

    shard: Long
    row: Long
    has_error: NDArray[np.bool_]
    outcomes: dict[str, Outcome]
    key: pa.Array | None = None
    is_again: bool = False

    def take(self, index: Long) -> Rows:
        """These rows, in this order."""

        def at(values: Any) -> Any:
            return None if values is None else values[index] if isinstance(values, np.ndarray) else values.take(index)

        outcomes = {name: Outcome(*(at(part) for part in found)) for name, found in self.outcomes.items()}
        places = self.shard[index], self.row[index], self.has_error[index]
        return Rows(*places, outcomes, at(self.key), self.is_again)


@dataclass(frozen=True)
class InputFile:
    """A file of a plan: its number there, its rows (None if it was refused), its size and its version."""

    number: int
    n_rows: int | None
    size_bytes: int
    version: str


class Side:
    """An output, opened."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.output: Location = locate(url)
        self.plan: Plan = require_plan(url)
        self.task: Task = task_of(self.plan)
        self.digest = self.plan.fingerprint.digest
        self.parts: Long = list_parts(self.output, self.digest)
        if not len(self.parts):
            raise UnusableError(Fault(url, "no shard is finished yet", f"see rembert-ray status {url}"))
        schema = read_footer(self.part(int(self.parts[0]))).schema.to_arrow_schema()
        self.kept = [name for name in kept_names(self.plan) if name in schema.names]
        self.columns = [name for name in schema.names if name not in self.kept]

    @property
    def manifest(self) -> dict[str, Any]:
        """As it was when the plan was made."""
        manifest: dict[str, Any] = self.plan.record["manifest"]
        return manifest

    @property
    def n_missing(self) -> int:
        """Shards that are planned and not there."""
        return self.plan.n_shards - len(self.parts)

    @property
    def n_rows(self) -> int:
        """Rows that are there."""
        return int(self.plan.shards["n_rows"].to_numpy()[self.parts].sum())

    def part(self, shard: int) -> Location:
        """The object of a shard."""
        return self.output.child(part_name(shard, self.digest))

    def files(self) -> dict[str, InputFile]:
        """The input files by their names below `input.path`."""
        path = self.manifest.get("input", {}).get("path")
        root = "" if path is None else input_root(path).url.rstrip("/") + "/"
        found = {}
        for number, file in enumerate(self.plan.files.to_pylist()):
            url = file["url"]
            name = url.removeprefix(root) if root and url.startswith(root) else url.rpartition("/")[2]
            found[name] = InputFile(number, file["file_rows"], file["size_bytes"], file["version"])
        return found

    @cached_property
    def _cuts(self) -> tuple[Long, Long, Long]:
        """File, first row and number of rows of each shard; files ascend."""
        file, start, n_rows = (self.plan.shards[name].to_numpy() for name in ("file", "row_start", "n_rows"))
        return file, start, n_rows

    def shards_of(self, file: int) -> list[tuple[int, int, int]]:
        """(shard, first row, row behind the last) of each shard of a file, in order."""
        files, starts, sizes = self._cuts
        first, last = np.searchsorted(files, [file, file + 1]).tolist()
        return [(n, int(starts[n]), int(starts[n]) + int(sizes[n])) for n in range(first, last)]

    def read(self, shard: int, start: int, n_rows: int, key: str | None = None) -> Rows:
        """Rows of a part. Raises `ShardError` and `StorageError` as `read_rows` does."""
        wanted = [*self.columns, *([] if key is None or key in self.columns else [key])]
        table = read_rows(self.part(shard), start, n_rows, wanted)
        return Rows(
            np.full(n_rows, shard, np.int64),
            np.arange(start, start + n_rows),
            np.asarray(table["error"].is_valid()),
            {name: task.outcome(_of_head(table, prefix)) for name, prefix, task in self.task.heads()},
            None if key is None else _as_key(table[key]),
        )


def concatenated(blocks: Sequence[Rows]) -> Rows:
    """Rows of several parts, without vectors."""
    first = blocks[0]

    def together(parts: list[Any]) -> Any:
        return None if parts[0] is None else pa.concat_arrays(parts)

    outcomes = {
        name: Outcome(
            together([block.outcomes[name].text for block in blocks]),
            together([block.outcomes[name].score for block in blocks]),
        )
        for name in first.outcomes
    }
    shard, row, has_error = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("shard", "row", "has_error")
    )
    return Rows(shard, row, has_error, outcomes, together([block.key for block in blocks]))


def _as_key(column: pa.ChunkedArray) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return column.cast(pa.large_string() if pa.types.is_string(kind) else kind).combine_chunks()


def _of_head(table: pa.Table, prefix: str) -> pa.Table:
    own = table.select([name for name in table.column_names if name.startswith(prefix)])
    return own.rename_columns([name.removeprefix(prefix) for name in own.column_names])
