"""What a corpus offers: its columns, by one footer, and which of them a task would read and a person would keep.

Guesses go by names and sizes, never by looking at rows. It reads no data pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import Fault, ShardError, UnusableError, nearest
from rembert_ray.footers import is_text, is_text_list
from rembert_ray.storage.footer_trial import FooterTrial
from rembert_ray.storage.listing import expand_input, input_root, partition_values
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import read_raw_footer
from rembert_ray.tasks.base import LIST_COLUMNS

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "body", "content", "sentence", "document", "passage", "article", "review", "comment", "message"),
    "words": ("words", "tokens"),
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph", "document", "text", "body", "content"),
    "prompt": ("prompt", "instruction", "premise", "question", "input", "text"),
    "choices": ("choices", "options", "endings", "candidates", "answers"),
}
"""Column of a task -> what people call it, the likeliest first."""
KEPT_NAMES = frozenset(
    ["id", "uid", "uuid", "guid", "key", "url", "uri", "language", "lang", "locale", "source", "domain", "date"]
)


@dataclass(frozen=True)
class Column:
    """A column of the corpus; `n_bytes` are those of its values, uncompressed, in the footer that was read."""

    name: str
    type: pa.DataType
    n_bytes: int


@dataclass(frozen=True)
class Corpus:
    """What a listing and the footer of its first file say; `partitions` are the keys of its Hive folders."""

    path: str
    n_files: int
    columns: tuple[Column, ...]
    partitions: tuple[str, ...]

    def fitting(self, wanted: str) -> list[Column]:
        """The columns that could be what a task calls `wanted`, by their type."""
        fits = is_text_list if wanted in LIST_COLUMNS else is_text
        return [column for column in self.columns if fits(column.type)]


def look_at_corpus(path: str) -> Corpus:
    """List a corpus (a file, folder or glob) and read one footer.

    Raises:
        UnusableError: there is no Parquet file, or the first one cannot be used.
        StorageError: the store does not answer.
    """
    files = expand_input(path)
    first = files[0].location
    fix = "repair or remove the file, or name others"
    try:
        raw = read_raw_footer(first)
        with FooterTrial() as trial:
            if not trial.survives(raw):
                raise UnusableError(Fault(str(first), "its footer ends the process that reads it", fix))
        columns = _columns(pq.read_metadata(pa.BufferReader(raw)))
    except (ShardError, pa.ArrowException, ValueError) as error:
        raise UnusableError(Fault(str(first), f"its footer cannot be used: {error}", fix)) from error
    return Corpus(path, len(files), columns, tuple(partition_values(input_root(path), first)))


def _columns(footer: pq.FileMetaData) -> tuple[Column, ...]:
    sizes: Counter[str] = Counter()
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for leaf in range(footer.num_columns):
            sizes[footer.schema.column(leaf).path.split(".")[0]] += group.column(leaf).total_uncompressed_size
    schema = footer.schema.to_arrow_schema()
    return tuple(Column(field.name, field.type, sizes[field.name]) for field in schema)


def guess_columns(
    corpus: Corpus, forms: Sequence[tuple[str, ...]], given: Mapping[str, str], where: str = "--text-column"
) -> dict[str, str]:
    """What the task reads -> column of the corpus, for the first of `forms` that can be had; `given` ones are fixed.

    Raises:
        UnusableError: a given column is not there or of no such type, or nothing can be guessed.
    """
    known = {name for form in forms for name in form}
    faults = [
        Fault(where, f"the task reads no column {name!r}", nearest(name, known)) for name in given if name not in known
    ]
    for name, column in given.items():
        if name in known and column not in (fitting := [found.name for found in corpus.fitting(name)]):
            faults.append(Fault(where, f"{column!r} is no column for {name!r}", _offer(fitting, column)))
    if faults:
        raise UnusableError(faults)
    for form in forms:
        guessed = _guess_form(corpus, form, given) if set(given) <= set(form) else {}
        if len(guessed) == len(form):
            return guessed
    guessed = _guess_form(corpus, forms[0], given)
    raise UnusableError(
        [
            Fault(where, f"no column can be told to be {name!r}", _offer([c.name for c in corpus.fitting(name)], name))
            for name in forms[0]
            if name not in guessed
        ]
    )


def _offer(fitting: Sequence[str], word: str) -> str:
    return nearest(word, fitting) if fitting else "the corpus has no column of such a type"


def _guess_form(corpus: Corpus, form: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    found = dict(given)
    for name in form:
        free = [column for column in corpus.fitting(name) if column.name not in found.values()]
        if name not in found and (guess := _guess(name, free, is_alone=len(form) == 1)) is not None:
            found[name] = guess
    return {name: found[name] for name in form if name in found}


def _guess(name: str, columns: Sequence[Column], *, is_alone: bool) -> str | None:
    """The column that is called so, whose name holds such a word, or the largest where nothing else is read."""
    words = NAMES.get(name, (name,))
    for word in words:
        if found := [column.name for column in columns if column.name.casefold() == word]:
            return found[0]
    for word in words:
        if found := [column.name for column in columns if word in column.name.casefold() and not is_kept(column.name)]:
            return found[0]
    others = [column for column in columns if not is_kept(column.name)]
    return max(others, key=lambda column: column.n_bytes).name if others and is_alone else None


def is_kept(name: str) -> bool:
    """Whether a column's name is that of an id, or of something that people group by."""
    folded = name.casefold()
    return folded in KEPT_NAMES or folded.endswith(("_id", "_url", "_key"))


def guess_kept(corpus: Corpus, taken: Iterable[str]) -> list[str]:
    """Columns and Hive keys that are worth keeping, but for those of `taken` names, which the output has anyway."""
    names = [column.name for column in corpus.columns if is_kept(column.name) and not pa.types.is_nested(column.type)]
    unavailable = set(taken)
    return [name for name in dict.fromkeys([*names, *corpus.partitions]) if name not in unavailable]


def check_kept(corpus: Corpus, names: Sequence[str], where: str = "--keep") -> None:
    """Raises `UnusableError` for names that the corpus does not have."""
    known = {*(column.name for column in corpus.columns), *corpus.partitions}
    faults = [Fault(where, f"no column {name!r}", nearest(name, known)) for name in names if name not in known]
    if faults:
        raise UnusableError(faults)


def written_path(place: str, folder: Location) -> str:
    """A place as a manifest in `folder` names it: relative where it is local and below, else absolute."""
    location = locate(place)
    if not (location.is_local and folder.is_local) or location == folder:
        return "." if location == folder else str(location)
    below = location.url.removeprefix(folder.url.rstrip("/") + "/")
    # A `~` at the beginning would mean a home folder.
    return location.url if below.startswith("~") else below
