"""Parquet footers of the input, read in parallel and checked against what the job needs.

What is wrong with a file is a value here: `column_check` says what becomes of it. (A damaged *page* is found later, and
costs only its shard.) This file reads no data pages and decides no shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import Fault, ShardError
from rembert_ray.manifest import Manifest
from rembert_ray.storage.footer_trial import FooterTrial
from rembert_ray.storage.listing import FileInfo, partition_values
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import read_raw_footer

# Of one file: what a footer claims costs nothing to write, and each shard a line of the plan.
MOST_SHARDS = 1_000_000
_N_THREADS = 16
_FILES_AT_ONCE = 1024
_EXTENSION_KEY = b"ARROW:extension:name"
_RAY_EXTENSIONS = "ray."


def is_text(kind: pa.DataType) -> bool:
    """Whether Arrow values of this type are text: string, large_string, string_view, or a dictionary of them."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_text_list(kind: pa.DataType) -> bool:
    """Whether Arrow values of this type are lists of text."""
    is_list = (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    return bool(is_list) and is_text(kind.value_type)


COLUMN_KINDS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "text": (is_text, "text (string)"),
    "text_list": (is_text_list, "lists of text (list<string>)"),
    "text_or_list": (lambda kind: is_text(kind) or is_text_list(kind), "text or lists of text"),
}
"""What a task may ask of a column: a name, its check, and its words in a fault."""


@dataclass(frozen=True)
class InputNeeds:
    """What a job needs of every input file.

    `columns`: the name that the task uses -> column of the corpus; `kinds`: the same name -> key of
    `COLUMN_KINDS`, "text" where it is left out. `where` turns a manifest key into a place for a fault.
    """

    columns: Mapping[str, str]
    keep: Sequence[str]
    max_rows: int
    max_bytes: int
    kinds: Mapping[str, str] = field(default_factory=dict)
    where: Callable[[str], str] = str

    @classmethod
    def from_manifest(
        cls, manifest: Manifest, columns: Mapping[str, str], kinds: Mapping[str, str] | None = None
    ) -> InputNeeds:
        """The needs of a manifest's job; `columns` are those that its task reads, resolved."""
        return cls(
            columns=dict(columns),
            keep=manifest.input.keep,
            max_rows=manifest.sharding.rows,
            max_bytes=manifest.sharding.bytes,
            kinds=dict(kinds or {}),
            where=manifest.where,
        )

    @property
    def names(self) -> list[str]:
        """Every column of the corpus that is read, once each."""
        return list(dict.fromkeys([*self.columns.values(), *self.keep]))


@dataclass(frozen=True)
class FooterSummary:
    """What the plan wants to know of one file.

    `fields` are the needed columns that are in it, by name; `ray_types` every extension type of Ray's in it.
    """

    file: FileInfo
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    fields: Mapping[str, pa.Field]
    repeated: frozenset[str]
    known_names: tuple[str, ...]
    ray_types: tuple[str, ...]
    partition: Mapping[str, str | None]


def scan_footers(files: Sequence[FileInfo], root: Location, needs: InputNeeds) -> Iterator[FooterSummary | Fault]:
    """One summary per file, or the fault that its footer cannot be used; in the order of `files`.

    `root` is the folder below which Hive partitions count. Raises `StorageError` when the store does not answer.
    """
    with FooterTrial() as trial, ThreadPoolExecutor(_N_THREADS) as pool:
        # In pieces, so that a million files are not a million pending calls.
        for start in range(0, len(files), _FILES_AT_ONCE):
            piece = files[start : start + _FILES_AT_ONCE]
            yield from pool.map(lambda file: _summarize(file, root, needs, trial), piece)


def _summarize(file: FileInfo, root: Location, needs: InputNeeds, trial: FooterTrial) -> FooterSummary | Fault:
    fix = "repair or remove the file, or narrow input.path"
    try:
        footer = read_raw_footer(file.location, (file.size_bytes, file.version))
        if not trial.survives(footer):
            return Fault(str(file.location), "its footer ends the process that reads it", fix)
        return _summary_of(_parsed(footer), file, root, needs)
    except ShardError as error:
        return Fault(str(file.location), f"its footer cannot be used: {error.__cause__ or error}", fix)
    # What pyarrow raises for a footer that parses and makes no sense. ValueError: also a name that is not UTF-8.
    except (pa.ArrowException, ValueError, IndexError, OSError) as error:
        return Fault(str(file.location), f"its footer cannot be used: {error}", fix)


def _parsed(footer: bytes) -> pq.FileMetaData:
    """Raises `ShardError` for whatever an extension type that this process knows (Ray's, after a job) raises."""
    try:
        return pq.read_metadata(pa.BufferReader(footer))
    except Exception as error:
        raise ShardError(f"{type(error).__name__}: {error}") from error


def _summary_of(footer: pq.FileMetaData, file: FileInfo, root: Location, needs: InputNeeds) -> FooterSummary:
    schema = footer.schema.to_arrow_schema()
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    group_rows = tuple(group.num_rows for group in groups)
    if sum(group_rows) != footer.num_rows or any(n_rows < 0 for n_rows in group_rows):
        raise ValueError(f"it counts {footer.num_rows:,} rows, its row groups {sum(group_rows):,}")
    leaves = _needed_leaves(footer, needs.names)
    group_bytes = tuple(sum(max(0, group.column(leaf).total_uncompressed_size) for leaf in leaves) for group in groups)
    n_shards = sum(
        min(n_rows, 1 + n_rows // needs.max_rows + n_bytes // needs.max_bytes)
        for n_rows, n_bytes in zip(group_rows, group_bytes, strict=True)
    )
    if n_shards > MOST_SHARDS:
        claim = f"{footer.num_rows:,} rows of {sum(group_bytes):,} bytes"
        raise ValueError(f"it claims {claim}, more than {MOST_SHARDS:,} shards")
    return FooterSummary(
        file=file,
        group_rows=group_rows,
        group_bytes=group_bytes,
        fields={name: schema.field(name) for name in needs.names if schema.names.count(name) == 1},
        repeated=frozenset(name for name in needs.names if schema.names.count(name) > 1),
        known_names=tuple(schema.names),
        ray_types=tuple(
            f"{name} in column {column.name!r}"
            for column in schema
            for name in extension_names(column)
            if name.startswith(_RAY_EXTENSIONS)
        ),
        partition=partition_values(root, file.location),
    )


def _needed_leaves(footer: pq.FileMetaData, names: Sequence[str]) -> list[int]:
    """The indices of the column chunks that belong to top-level columns `names`."""
    wanted = set(names)
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    return [i for i, path in enumerate(paths) if path in wanted or any(path.startswith(name + ".") for name in wanted)]


def extension_names(column: pa.Field) -> Iterator[str]:
    """The names of all Arrow extension types in a column, at any depth, registered in this process or not."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        yield str(kind.extension_name)
        kind = kind.storage_type
    elif column.metadata and _EXTENSION_KEY in column.metadata:
        yield str(column.metadata[_EXTENSION_KEY].decode(errors="replace"))
    for index in range(kind.num_fields):
        yield from extension_names(kind.field(index))
