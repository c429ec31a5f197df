"""A few rows of an output, with where they came from: spread over it, drawn by a seed, or at given places.

No Ray, no torch, no model. What is made of a row for a person is the business of `sample_view.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.plan import Plan
from rembert_ray.storage.ahead import read_ahead
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import read_footer, read_rows

N_SAMPLES = 8
SOURCE_BUDGET_S = 10.0


@dataclass(frozen=True)
class Sample:
    """A row of an output.

    shard, row: its place in the output, from 0. source, source_row: file and row that it was made of. values: its
    columns. inputs: what the task read, None where it was not asked for or cannot be had.
    """

    shard: int
    row: int
    source: str
    source_row: int
    values: dict[str, Any]
    inputs: dict[str, Any] | None = None

    @property
    def error(self) -> str | None:
        """Why the row has no result, None if it has one."""
        reason: str | None = self.values["error"]
        return reason


def parse_where(arguments: Iterable[str]) -> dict[str, str]:
    """The `COLUMN=VALUE` of `--where`.

    Raises:
        UnusableError: one without a column or without `=`.
    """
    parts = [argument.partition("=") for argument in arguments]
    wrong = [column + equals + value for column, equals, value in parts if not column or not equals]
    if wrong:
        raise UnusableError(
            [Fault(f"--where {text}", "not COLUMN=VALUE", "such as --where label=de") for text in wrong]
        )
    return {column: value for column, _, value in parts}


def sample_rows(
    output: Location,
    plan: Plan,
    n_rows: int = N_SAMPLES,
    *,
    with_error: bool = False,
    seed: int | None = None,
    where: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Rows without an error (or with one), spread evenly over shards and over lengths, in the order of the input.

    Args:
        seed: draw them instead; each seed gives other rows, the same ones each time.
        where: only rows in which these columns have these values, written as text.

    Raises:
        UnusableError: no such column.
        ShardError, StorageError: a part is damaged, or the store gives out.
    """
    digest = plan.fingerprint.digest
    parts = list_parts(output, digest)
    if not len(parts) or n_rows < 1:
        return []
    if where:
        _check_columns(output.child(part_name(int(parts[0]), digest)), where)
    quota = -(-n_rows // len(parts))
    # Of a part more rows are taken than its share only where the other parts have too few.
    first: list[tuple[int, int]] = []
    spare: list[tuple[int, int]] = []
    generator = None if seed is None else np.random.default_rng(seed)

    def read(shard: int) -> tuple[int, pa.Table]:
        return shard, _plain_columns(output.child(part_name(shard, digest)), plan, shard, where)

    for shard, table in read_ahead(read, _spread(parts, n_rows, generator)):
        found = _candidates(table, with_error, where)
        order = _by_length(table, found, n_rows) if generator is None else generator.permutation(found)[:n_rows]
        chosen = [(shard, int(row)) for row in order]
        first, spare = first + chosen[:quota], (spare + chosen[quota:])[:n_rows]
        if len(first) >= n_rows:
            break
    return list(rows_at(output, plan, sorted((first + spare)[:n_rows])))


def rows_at(output: Location, plan: Plan, places: Iterable[tuple[int, int]]) -> Iterator[Sample]:
    """The rows at these places, (shard, row) in ascending order, without inputs; one part in memory at a time.

    Raises `ShardError` and `StorageError` as reading does.
    """
    rows_of: dict[int, list[int]] = {}
    for number, row in places:
        rows_of.setdefault(number, []).append(row)
    for shard in plan.iter_shards(np.array(list(rows_of), np.int64)):
        wanted = rows_of[shard.index]
        part = output.child(part_name(shard.index, plan.fingerprint.digest))
        table = read_rows(part, wanted[0], wanted[-1] - wanted[0] + 1)
        values = as_python(table.take(pa.array([row - wanted[0] for row in wanted])))
        for row, value in zip(wanted, values, strict=True):
            yield Sample(shard.index, row, shard.url, shard.row_start + row, value)


def as_python(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python values; text that is not UTF-8, as sources may have it, with its bad bytes replaced."""
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table[name].to_pylist()
        except UnicodeDecodeError:
            raw = table[name].cast(pa.large_binary()).to_pylist()
            columns[name] = [None if value is None else value.decode("utf-8", "replace") for value in raw]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _check_columns(part: Location, where: Mapping[str, str]) -> None:
    schema = read_footer(part).schema.to_arrow_schema()
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    wrong = [name for name in where if name not in plain]
    if wrong:
        what = "no column of plain values has this name"
        raise UnusableError([Fault(f"--where {name}", what, nearest(name, plain)) for name in wrong])


def _spread(parts: NDArray[np.int64], n_rows: int, generator: np.random.Generator | None) -> list[int]:
    """All parts: first as many as rows are wanted, evenly spaced; or in the order that is drawn."""
    if generator is not None:
        drawn: list[int] = generator.permutation(parts).tolist()
        return drawn
    first = np.unique(np.linspace(0, len(parts) - 1, min(n_rows, len(parts))).astype(np.int64))
    order = np.concatenate([first, np.setdiff1d(np.arange(len(parts)), first)])
    spread: list[int] = parts[order].tolist()
    return spread


def _plain_columns(part: Location, plan: Plan, shard: int, where: Mapping[str, str] | None) -> pa.Table:
    columns = list(dict.fromkeys(["error", "n_tokens", *(where or {})]))
    return read_rows(part, 0, plan.shard(shard).n_rows, columns)


def _candidates(table: pa.Table, with_error: bool, where: Mapping[str, str] | None) -> NDArray[np.int64]:
    """The rows that may be shown."""
    is_wanted = np.asarray(table["error"].is_valid()) == with_error
    for name, value in (where or {}).items():
        is_wanted &= np.asarray(pc.fill_null(_equals(table[name], value), False))
    return np.flatnonzero(is_wanted)


def _equals(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    """Whether a value, written as text, is this one; null is no value."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_boolean(column.type):
        column = pc.if_else(column, "true", "false")
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pc.equal(column, value.encode())
    return pc.equal(column.cast(pa.large_string()), value)


def _by_length(table: pa.Table, rows: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """At most so many of these rows, from the middle of the lengths outwards."""
    lengths = table["n_tokens"].to_numpy()[rows]
    ordered = rows[np.argsort(lengths, kind="stable")]
    places = np.unique(((np.arange(n_rows) + 0.5) / n_rows * len(ordered)).astype(np.int64))
    spread: NDArray[np.int64] = ordered[places[places < len(ordered)]]
    return spread[np.argsort(np.abs(np.arange(len(spread)) - len(spread) // 2), kind="stable")]
