"""What changes results, as a short digest and as a readable difference.

A fingerprint is a flat table of names and values: the model's and the tokenizer's content, the task with
every resolved parameter, precision, text options, columns and sharding. Two runs may write to one output only
if their fingerprints are equal. Resources, limits, places and the version of this package are not in it: they
change how fast and where, not what. (A release that changes what is written raises `OUTPUT_FORMAT`.)

It reads files to digest them and writes nothing; it must not import torch or ray.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.filesystem import explain, retry_transient, storage_errors
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location
from rembert_ray.storage.stream import open_file

OUTPUT_FORMAT = 1
"""Raised when the same inputs and parameters give other columns or values than before."""

MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
TOKENIZER_FILES = (
    "sentencepiece.model",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
VOCABULARY_FILES = ("sentencepiece.model", "tokenizer.json", "vocab.json", "vocab.txt")

_CHUNK_BYTES = 8 * 1024**2
_N_THREADS = 8

Value = Any
"""What a fingerprint holds: anything that JSON can say."""


class _Absent:
    """The value of a field that is not there; None is a value (`text.max_tokens: null`)."""

    def __repr__(self) -> str:
        return "(not there)"


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Difference:
    """One field that is not the same; a field that one side lacks is `ABSENT` there."""

    key: str
    old: Value
    new: Value

    def __str__(self) -> str:
        return f"{self.key}: {show_value(self.old)} -> {show_value(self.new)}"


@dataclass(frozen=True)
class Fingerprint:
    """Names and values of everything that changes results. Values are what JSON gives back for them."""

    fields: Mapping[str, Value]

    def __post_init__(self) -> None:
        # Through JSON once, so that a stored fingerprint equals a fresh one: tuples become lists.
        object.__setattr__(self, "fields", json.loads(canonical_json(dict(self.fields))))

    @property
    def digest(self) -> str:
        """12 hex digits for object names: 48 bits tell the few fingerprints of one output apart."""
        return hashlib.sha256(canonical_json(self.fields).encode()).hexdigest()[:12]


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Raises ValueError or TypeError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def make_fingerprint(
    *,
    model_digest: str,
    tokenizer_digest: str,
    task: str,
    head: Mapping[str, Any],
    precision: str,
    text: Mapping[str, Any],
    columns: Mapping[str, str],
    keep: Sequence[str],
    sharding: Mapping[str, int],
) -> Fingerprint:
    """The fingerprint of a job from resolved values: defaults filled in, `auto` decided.

    `head` are the validated parameters of the task, `text` and `sharding` the dumped sections of the
    manifest, `columns` the name that the task uses -> the column of the corpus. `precision` is the dtype that
    runs, not `auto`, which would mean one thing on a CPU and another on a GPU.
    """
    fields: dict[str, Value] = {
        "format": OUTPUT_FORMAT,
        "model": model_digest,
        "tokenizer": tokenizer_digest,
        "task": task,
        "precision": precision,
        "keep": list(keep),
    }
    sections = {"head": head, "text": text, "columns": columns, "sharding": sharding}
    for section, values in sections.items():
        fields |= {f"{section}.{name}": value for name, value in values.items()}
    return Fingerprint(fields)


def difference(old: Fingerprint, new: Fingerprint) -> list[Difference]:
    """The fields that differ, by name; empty when the fingerprints are equal."""
    pairs = [
        Difference(key, old.fields.get(key, ABSENT), new.fields.get(key, ABSENT))
        for key in sorted(old.fields.keys() | new.fields.keys())
    ]
    return [pair for pair in pairs if not _is_same(pair.old, pair.new)]


def _is_same(old: Value, new: Value) -> bool:
    if old is ABSENT or new is ABSENT:
        return False
    # As the digest sees them: 1, 1.0 and true are three values.
    return canonical_json(old) == canonical_json(new)


def digest_model(model: Location) -> str:
    """sha256 over names and contents of the configuration and the weights (`MODEL_FILES`) in a model folder.

    Raises `UnusableError` when a configuration or weights are missing or unreadable, `StorageError` when the
    store does not answer.
    """
    names = _present(model, MODEL_FILES)
    if "config.json" not in names:
        raise UnusableError(Fault(str(model), "no config.json there", "`model` must be a folder of one model"))
    if not any(name.endswith(".safetensors") for name in names):
        fix = "save the model with safe_serialization=True"
        raise UnusableError(Fault(str(model), "no *.safetensors there", fix))
    return digest_files(model, names)


def digest_tokenizer(model: Location) -> str:
    """sha256 over names and contents of the tokenizer's files (`TOKENIZER_FILES`) in a model folder.

    Raises like `digest_model`.
    """
    names = _present(model, TOKENIZER_FILES)
    if not any(name in VOCABULARY_FILES for name in names):
        fix = "copy the tokenizer's files into the folder of the model"
        what = "no tokenizer there: none of " + ", ".join(VOCABULARY_FILES)
        raise UnusableError(Fault(str(model), what, fix))
    return digest_files(model, names)


def digest_files(folder: Location, names: Iterable[str]) -> str:
    """sha256 (hex) over the names and contents of files in `folder`, whatever the order of `names`.

    Files are streamed, each on a thread of its own, at most eight chunks of 8 MiB in memory. The result is
    the sha256 of the lines that `sha256sum` prints for the sorted names, so it can be checked by hand:
    `LC_ALL=C ls NAMES | xargs sha256sum | sha256sum`.

    Raises `UnusableError` for all unreadable files at once, `StorageError` when the store does not answer.
    """
    ordered = sorted(set(names))
    with ThreadPoolExecutor(_N_THREADS) as pool:
        results = list(pool.map(lambda name: _digest_or_fault(folder.child(name)), ordered))
    faults = [result for result in results if isinstance(result, Fault)]
    if faults:
        raise UnusableError(faults)
    lines = "".join(f"{digest}  {name}\n" for name, digest in zip(ordered, results, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest_or_fault(location: Location) -> str | Fault:
    try:
        return retry_transient(lambda: _digest_one(location), f"reading {location}")
    except storage_errors() as error:
        return explain(str(location), error)


def _digest_one(location: Location) -> str:
    digest = hashlib.sha256()
    with open_file(location) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _present(folder: Location, patterns: Sequence[str]) -> list[str]:
    try:
        names = list_names(folder)
    except storage_errors() as error:
        raise UnusableError(explain(str(folder), error)) from error
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def show_value(value: Value) -> str:
    """A value for a message, digests shortened."""
    # A digest is recognised by its first digits; the rest only hides what differs.
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    return repr(value)
