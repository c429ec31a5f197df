"""Parquet footers of the input, read in parallel and checked against what the job needs.

Every footer is checked before anything starts and all faults are reported together. A file whose footer cannot be
read is a fault too: its rows cannot be counted, so a plan could not promise that rows in = rows out. (A damaged
*page* is found later, and costs only its shard.) This file reads no data pages and decides no shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import Fault, ShardError, nearest
from rembert_ray.manifest import Manifest
from rembert_ray.storage.listing import FileInfo, partition_values
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import read_footer

MAX_FAULTS = 20
_N_THREADS = 16
_FILES_AT_ONCE = 1024
_EXTENSION_KEY = b"ARROW:extension:name"


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
    """What the plan wants to know of one file. `fields` are the needed columns that are in it, by name."""

    file: FileInfo
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    fields: Mapping[str, pa.Field]
    repeated: frozenset[str]
    known_names: tuple[str, ...]
    partition: Mapping[str, str | None]


def scan_footers(files: Sequence[FileInfo], root: Location, needs: InputNeeds) -> Iterator[FooterSummary | Fault]:
    """One summary per file, or the fault that its footer cannot be read; in the order of `files`.

    `root` is the folder below which Hive partitions count. Raises `StorageError` when the store does not answer.
    """
    with ThreadPoolExecutor(_N_THREADS) as pool:
        # In pieces, so that a million files are not a million pending calls.
        for start in range(0, len(files), _FILES_AT_ONCE):
            yield from pool.map(lambda file: _summarize(file, root, needs), files[start : start + _FILES_AT_ONCE])


def _summarize(file: FileInfo, root: Location, needs: InputNeeds) -> FooterSummary | Fault:
    fix = "repair or remove the file, or narrow input.path"
    try:
        footer = read_footer(file.location)
        schema = footer.schema.to_arrow_schema()
    except ShardError as error:
        return Fault(str(file.location), f"its footer cannot be read: {error.__cause__ or error}", fix)
    # ValueError: an extension type that this process knows (Ray's, after a job) and that cannot read its metadata.
    except (pa.ArrowException, ValueError) as error:
        return Fault(str(file.location), f"its schema cannot be read: {error}", fix)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    group_rows = tuple(group.num_rows for group in groups)
    if sum(group_rows) != footer.num_rows or any(n_rows < 0 for n_rows in group_rows):
        what = f"its footer counts {footer.num_rows:,} rows, its row groups {sum(group_rows):,}"
        return Fault(str(file.location), what, fix)
    leaves = _needed_leaves(footer, needs.names)
    return FooterSummary(
        file=file,
        group_rows=group_rows,
        group_bytes=tuple(
            sum(max(0, group.column(leaf).total_uncompressed_size) for leaf in leaves) for group in groups
        ),
        fields={name: schema.field(name) for name in needs.names if schema.names.count(name) == 1},
        repeated=frozenset(name for name in needs.names if schema.names.count(name) > 1),
        known_names=tuple(schema.names),
        partition=partition_values(root, file.location),
    )


def _needed_leaves(footer: pq.FileMetaData, names: Sequence[str]) -> list[int]:
    """The indices of the column chunks that belong to top-level columns `names`."""
    wanted = set(names)
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    return [i for i, path in enumerate(paths) if path in wanted or any(path.startswith(name + ".") for name in wanted)]


@dataclass
class _Faults:
    """The first faults of one cause, and how many there were: a million files make no million messages."""

    first: list[Fault] = field(default_factory=list)
    n_faults: int = 0

    def add(self, fault: Fault) -> None:
        self.n_faults += 1
        if len(self.first) < MAX_FAULTS:
            self.first.append(fault)


class ColumnCheck:
    """Checks summaries one after the other, in order, and says at the end what is wrong with all of them."""

    def __init__(self, needs: InputNeeds) -> None:
        self._needs = needs
        self._n_files = 0
        self._missing: dict[str, _Faults] = {}
        self._other = _Faults()
        self._first: dict[str, tuple[pa.DataType, FileInfo]] = {}

    def add(self, summary: FooterSummary) -> None:
        """Check one file. One without rows is fine whatever its columns: writers leave them out, or without type."""
        if not any(summary.group_rows):
            return
        self._n_files += 1
        url = str(summary.file.location)
        for name in self._needs.names:
            is_constant = name in summary.partition and name in self._needs.keep
            if name in summary.repeated:
                what = f"has more than one column {name!r}"
                self._other.add(Fault(url, what, "rewrite it with distinct names"))
            elif name not in summary.fields and (name in self._needs.columns.values() or not is_constant):
                self._add_missing(name, summary)
        for name, column in self._needs.columns.items():
            self._check_kind(name, column, summary)
        for name in self._needs.keep:
            self._check_kept(name, summary)

    def add_fault(self, fault: Fault) -> None:
        """Take in a fault of a file that has no summary."""
        self._other.add(fault)

    def faults(self) -> list[Fault]:
        """All faults, at most `MAX_FAULTS` and a last one that counts the rest.

        A column that no file has is one fault at its manifest key, not one per file.
        """
        found: list[Fault] = []
        n_faults = 0
        for name, faults in self._missing.items():
            if faults.n_faults == self._n_files:
                what = f"no column {name!r} in any of {self._n_files:,} file(s) with rows"
                found.append(Fault(self._place_of(name), what, faults.first[0].fix))
                n_faults += 1
            else:
                found += faults.first
                n_faults += faults.n_faults
        found = (found + self._other.first)[:MAX_FAULTS]
        n_hidden = n_faults + self._other.n_faults - len(found)
        if n_hidden:
            what = f"and {n_hidden:,} more faults like these"
            found.append(Fault(self._needs.where("input.path"), what, "repair these first"))
        return found

    def schema(self) -> pa.Schema:
        """The kept columns with their types, once every file is checked. Partition keys are strings."""
        return pa.schema([(name, self._first[name][0]) for name in self._needs.keep])

    def _place_of(self, column: str) -> str:
        for name, read in self._needs.columns.items():
            if read == column:
                return self._needs.where(f"input.columns.{name}")
        return self._needs.where("input.keep")

    def _add_missing(self, name: str, summary: FooterSummary) -> None:
        fix = nearest(name, {*summary.known_names, *summary.partition})
        if name in summary.partition:
            fix = "it is a Hive partition key, which can be kept but not read as text"
        faults = self._missing.setdefault(name, _Faults())
        faults.add(Fault(str(summary.file.location), f"no column {name!r}", fix))

    def _check_kind(self, name: str, column: str, summary: FooterSummary) -> None:
        found = summary.fields.get(column)
        is_right, wanted = COLUMN_KINDS[self._needs.kinds.get(name, "text")]
        if found is not None and not is_right(found.type):
            what = f"column {column!r} is {found.type}, {name!r} needs {wanted}"
            fix = f"name another column in input.columns.{name}, or convert it"
            self._other.add(Fault(str(summary.file.location), what, fix))

    def _check_kept(self, name: str, summary: FooterSummary) -> None:
        found = summary.fields.get(name)
        if found is None and name not in summary.partition:
            return
        url = str(summary.file.location)
        extension = None if found is None else extension_name(found)
        if extension is not None:
            what = f"column {name!r} has the extension type {extension}, which other readers do not know"
            self._other.add(Fault(url, what, "drop it from input.keep, or store it as a plain type"))
            return
        kind = pa.string() if found is None else found.type
        first, example = self._first.setdefault(name, (kind, summary.file))
        if kind != first:
            what = f"column {name!r} is {kind} here, but {first} in {example.location}"
            self._other.add(Fault(url, what, "rewrite the files with one type, or drop it from input.keep"))


def extension_name(column: pa.Field) -> str | None:
    """The name of an Arrow extension type in a column, at any depth, registered here or not; None without one."""
    if isinstance(column.type, pa.BaseExtensionType):
        return str(column.type.extension_name)
    if column.metadata and _EXTENSION_KEY in column.metadata:
        return str(column.metadata[_EXTENSION_KEY].decode(errors="replace"))
    children = (column.type.field(i) for i in range(column.type.num_fields))
    return next((name for name in map(extension_name, children) if name is not None), None)
