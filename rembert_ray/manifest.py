"""The manifest: what a person may write, checked whole before anything starts.

One YAML file describes one job. Every fault is reported at once, with file, line and column; an unknown key
names the nearest known one. This file checks form and turns relative paths into absolute ones; it must not
look at the model, the data or the output, and imports neither torch nor ray. What `head` may contain is the
business of the task: see `schema_faults`.
"""

from __future__ import annotations

import json
import os.path
import posixpath
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.manifest_source import KeyPath, Source, apply_override, parse_yaml
from rembert_ray.schema_faults import faults_from
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import locate, read_bytes

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_SHARD_ROWS = 2**31 - 1
MAX_SHARD_BYTES = 1024**3

_BYTE_UNITS = {"b": 1} | {
    name: base**power
    for power, letter in enumerate("kmgt", start=1)
    for name, base in ((f"{letter}b", 1000), (f"{letter}ib", 1024))
}
_BYTES = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]+)\s*")


def _empty_section_as_default(value: object) -> object:
    # A section whose keys are all commented out reads as null; people mean the defaults.
    return {} if value is None else value


def _byte_count(value: object) -> object:
    """`"64 MiB"` -> 67108864; numbers pass through to pydantic's own check."""
    if not isinstance(value, str):
        return value
    match = _BYTES.fullmatch(value)
    if match is None or match[2].lower() not in _BYTE_UNITS:
        raise PydanticCustomError(
            "bytes", "expected a size such as 64 MiB or a number of bytes, got {got}", {"got": repr(value)}
        )
    return round(float(match[1]) * _BYTE_UNITS[match[2].lower()])


def _auto_or(check: Callable[[int | float], bool], wanted: str) -> Callable[[object], object]:
    """A check for `auto` or a number that passes `check`; one message instead of one per union member."""

    def validate(value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (is_number and check(value)):  # type: ignore[arg-type]
            return value
        message = "expected auto or {wanted}, got {got}"
        raise PydanticCustomError("auto", message, {"wanted": wanted, "got": repr(value)})

    return validate


def _is_count(value: int | float) -> bool:
    return isinstance(value, int) and value > 0


AutoCount = Annotated[int | Literal["auto"], BeforeValidator(_auto_or(_is_count, "a whole number above 0"))]


def _gpu_share(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Ray takes a share of one GPU, or whole ones.
    if is_number and (0 <= value < 1 or (value >= 1 and value == int(value))):  # type: ignore[operator, call-overload]
        return float(value)  # type: ignore[arg-type]
    wanted = "0, a share of one GPU such as 0.5, or a whole number"
    raise PydanticCustomError("gpus", "expected {wanted}, got {got}", {"wanted": wanted, "got": repr(value)})


Gpus = Annotated[float, BeforeValidator(_gpu_share)]
BYTES_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*([kmgtKMGT][iI]?)?[bB]\s*$"
BYTES_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": BYTES_PATTERN}]}
ByteCount = Annotated[int, BeforeValidator(_byte_count), WithJsonSchema(BYTES_SCHEMA)]
AutoCpus = Annotated[float | Literal["auto"], BeforeValidator(_auto_or(lambda value: value > 0, "a number above 0"))]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """What all sections share: no unknown keys, no change after loading, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Input(Section):
    """What is read."""

    path: Text = Field(description="file, folder, glob or Hive-partitioned folder; local or URL")
    columns: dict[str, Text] = Field(
        default={}, description="what the task needs -> column of the corpus; default: the same name"
    )
    keep: tuple[Text, ...] = Field(
        default=(), strict=False, description="columns or Hive partition keys copied to the output"
    )

    rename: dict[str, Text] = Field(
        default={},
        description="kept column -> its name in the output, for instance where the task writes the same name",
    )

    @property
    def kept_names(self) -> list[str]:
        """The kept columns as they are called in the output."""
        return [self.rename.get(name, name) for name in self.keep]

    @model_validator(mode="after")
    def _check_keep(self) -> Input:
        if strange := sorted(set(self.rename) - set(self.keep)):
            message = "input.rename names columns that are not in input.keep: {names}"
            raise PydanticCustomError("rename", message, {"names": ", ".join(strange)})
        repeated = sorted({name for name in self.kept_names if self.kept_names.count(name) > 1})
        if repeated:
            raise PydanticCustomError(
                "keep", "two kept columns are called {names} in the output", {"names": ", ".join(repeated)}
            )
        return self


class Output(Section):
    """Where the result goes."""

    path: Text = Field(description="folder or prefix; local or URL")


class TextOptions(Section):
    """How long documents become windows."""

    max_tokens: int | None = Field(
        default=None,
        gt=0,
        description="window size in tokens, special tokens included; null: what the model's positions allow",
    )
    overlap: int = Field(default=64, ge=0, description="tokens shared by neighbouring windows")
    long_documents: Literal["window", "truncate", "error"] = Field(
        default="window",
        description="what happens to a document of more than one window: all of it is read, window by window; only its "
        "beginning is, and `truncated` says so; it becomes an `error` value",
    )

    @model_validator(mode="after")
    def _check_overlap(self) -> TextOptions:
        if self.max_tokens is not None and self.overlap >= self.max_tokens:
            message = "text.overlap ({overlap}) must be smaller than text.max_tokens ({max_tokens})"
            raise PydanticCustomError("overlap", message, {"overlap": self.overlap, "max_tokens": self.max_tokens})
        return self


class Sharding(Section):
    """How large a shard may be; whichever limit is met first counts."""

    rows: int = Field(default=10_000, gt=0, le=MAX_SHARD_ROWS, description="at most so many rows")
    bytes: ByteCount = Field(
        default=64 * 1024**2,
        gt=0,
        le=MAX_SHARD_BYTES,
        description="at most so much decoded text and kept columns",
    )


class Resources(Section):
    """What the job takes of the cluster. Nothing here changes a result."""

    actors: AutoCount = Field(default="auto", description="infer actors, one model each")
    # Not `auto`: what a job computes, and in which precision, must not depend on the cluster that it meets.
    gpus_per_actor: Gpus = Field(default=0.0, description="0: run on CPU; 1: a GPU for each actor; 0.5: half of one")
    cpus_per_actor: AutoCpus = Field(default="auto", description="CPUs of an infer actor, and its threads on a CPU")
    encoders: AutoCount = Field(default="auto", description="CPU workers that read and tokenize")
    batch_tokens: AutoCount = Field(default="auto", description="token budget of one forward pass")


class Limits(Section):
    """When the job gives up."""

    errors: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of rows with an error above which the run ends with exit code 3",
    )
    stall_s: float = Field(
        default=900.0,
        gt=0,
        description="seconds in which no shard comes back after which the run ends; a worker that gives no sign of "
        "life for a third of them is ended",
    )
    attempts: int = Field(default=3, ge=1, le=100, description="attempts per shard")
    storage_s: float = Field(
        default=120.0, ge=0, description="seconds for which a store that does not answer is tried again before the end"
    )


class DriftLimits(Section):
    """What the result is compared with, and when it has changed too much."""

    against: Text | None = Field(default=None, description="the output of an earlier run; null: no comparison")
    warn: float = Field(default=0.1, gt=0, description="population stability index from which on a feature is reported")
    fail: float = Field(default=0.25, gt=0, description="index from which on the result counts as another one")
    gate: bool = Field(
        default=False, description="withhold _SUCCESS and end with exit code 3 when a feature reaches `fail`"
    )

    @model_validator(mode="after")
    def _check_gate(self) -> DriftLimits:
        if self.gate and self.against is None:
            raise PydanticCustomError("gate", "drift.gate needs drift.against, the output to compare with")
        if self.warn > self.fail:
            message = "drift.warn ({warn}) must not be above drift.fail ({fail})"
            raise PydanticCustomError("drift", message, {"warn": self.warn, "fail": self.fail})
        return self


def _section(default: type[Section]) -> Any:
    return Field(default_factory=default)


def _check_finite(head: dict[str, Any]) -> dict[str, Any]:
    """Parameters are recorded as JSON, which has neither NaN nor infinity."""
    try:
        json.dumps(head, allow_nan=False)
    except ValueError as error:
        raise PydanticCustomError("finite", "numbers must be finite (no .nan, no .inf)") from error
    return head


EmptyAsDefault = BeforeValidator(_empty_section_as_default)


class Manifest(Section):
    """One job, as written. Load it with `load_manifest`; `where` says where each key was written."""

    task: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = Field(description="name of a file in rembert_ray/tasks")
    model: Text = Field(description="folder or URL of the model")
    input: Annotated[Input, EmptyAsDefault]
    output: Annotated[Output, EmptyAsDefault]
    head: Annotated[dict[str, Any], EmptyAsDefault, AfterValidator(_check_finite)] = Field(
        default={}, description="parameters of the task"
    )
    text: Annotated[TextOptions, EmptyAsDefault] = _section(TextOptions)
    sharding: Annotated[Sharding, EmptyAsDefault] = _section(Sharding)
    resources: Annotated[Resources, EmptyAsDefault] = _section(Resources)
    precision: Literal["auto", "float32", "bfloat16", "float16", "float8", "int8"] = Field(
        default="auto",
        description="auto: float32 on CPU, bfloat16 on a GPU; float8: on a GPU of compute capability 8.9 or more; "
        "int8: on a CPU with VNNI",
    )
    limits: Annotated[Limits, EmptyAsDefault] = _section(Limits)
    drift: Annotated[DriftLimits, EmptyAsDefault] = _section(DriftLimits)

    _source: Source = PrivateAttr(default_factory=lambda: Source("manifest"))

    def where(self, key: str | KeyPath) -> str:
        """`tag.yaml:12:3 head.top_k` for `head.top_k` or its path: the `where` of a `Fault` about it."""
        return self._source.where(tuple(key.split(".")) if isinstance(key, str) else key)

    def places(self) -> list[tuple[KeyPath, str]]:
        """Every place that the manifest names, with its key: what is read from and what is written to."""
        values = self.model_dump(include={"model", "input", "output", "head", "drift"})
        found = ((path, _at(values, path)) for path in _place_keys(values))
        return [(path, place) for path, place in found if isinstance(place, str)]


def load_manifest(path_or_url: str, overrides: Sequence[str] = (), allowed: AllowedRoots | None = None) -> Manifest:
    """Read, check and resolve a manifest.

    `overrides` are the `a.b=c` of `--set`, in order; `c` is YAML. Relative paths of the file count from the
    file's folder (also when that is a URL), those of `overrides` from the current folder; `~` is the home
    folder. A manifest at a URL must lie below the `allowed` roots (default: those of the environment); its places are
    for `check_job` to look at.

    Raises `UnusableError` with every fault of the file and the overrides at once, `StorageError` when a
    remote store does not answer.
    """
    return manifest_from(read_source(path_or_url, overrides, allowed))


def read_source(path_or_url: str, overrides: Sequence[str] = (), allowed: AllowedRoots | None = None) -> Source:
    """The YAML of a manifest with overrides and paths as in `load_manifest`, and the faults of both, before any check.

    Raises `UnusableError` when there is no text to read, `StorageError` when a remote store does not answer.
    """
    allowed = AllowedRoots.given() if allowed is None else allowed
    if not locate(path_or_url).is_local and (refused := allowed.faults("manifest", path_or_url)):
        raise UnusableError(refused)
    return source_of(_read_text(path_or_url), path_or_url, overrides)


def source_of(text: str, path_or_url: str, overrides: Sequence[str] = ()) -> Source:
    """Like `read_source`, of a text that was read from `path_or_url`."""
    source = parse_yaml(text, path_or_url)
    if isinstance(source.values, dict):
        for argument in overrides:
            apply_override(source, argument)
        _resolve_paths(source, _folder_of(path_or_url))
    elif not source.faults:
        is_empty = source.values is None
        what = "the manifest is empty" if is_empty else "a manifest is a mapping of keys to values"
        source.faults.append(Fault(path_or_url, what, "start with `task: tag`, `model: ...`, `input:`, `output:`"))
    return source


def manifest_from(source: Source) -> Manifest:
    """The manifest of a source, which it takes over. Raises `UnusableError` with every fault of both."""
    faults = list(source.faults)
    if isinstance(source.values, dict):
        try:
            manifest = Manifest.model_validate(source.values)
        except ValidationError as error:
            faults += faults_from(error, Manifest, source.where, source.is_refused)
    if faults:
        raise UnusableError(faults)
    source.values = None
    manifest._source = source
    return manifest


def _read_text(path_or_url: str) -> str:
    location = locate(path_or_url)
    try:
        data = read_bytes(location, most_bytes=MAX_MANIFEST_BYTES)
    except IsADirectoryError as error:
        raise UnusableError(Fault(path_or_url, "a folder, not a manifest", "name the YAML file")) from error
    except FileNotFoundError as error:
        fix = "check the spelling of the path"
        if location.is_local and Path(location.path).parent.is_dir():
            names = [path.name for path in Path(location.path).parent.glob("*.y*ml")]
            fix = nearest(location.name, names) if names else "its folder holds no YAML file"
        raise UnusableError(Fault(path_or_url, "no such manifest", fix)) from error
    except storage_errors() as error:
        raise UnusableError(explain(path_or_url, error)) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        raise UnusableError(Fault(path_or_url, what, "save the file as UTF-8")) from error


def _folder_of(path_or_url: str) -> str:
    return locate(path_or_url).parent.url


def _resolve_paths(source: Source, folder: str) -> None:
    """Make the paths of `source` absolute, in place; what is no text is left to the schema check."""
    for path in _place_keys(source.values):
        section = _at(source.values, path[:-1])
        value = section.get(path[-1]) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(value, str) and value:
            base = str(Path.cwd()) if source.is_overridden(path) else folder
            try:
                section[path[-1]] = resolve_path(value, base)
            except ValueError as error:
                source.faults.append(Fault(source.where(path), str(error), "give a full path or URL"))


def _place_keys(values: Any) -> list[KeyPath]:
    """The keys of a manifest that hold a path or URL."""
    heads = _at(values, ("head", "heads"))
    n_heads = len(heads) if isinstance(heads, list) else 0
    of_heads: list[KeyPath] = [("head", "heads", number, "model") for number in range(n_heads)]
    return [("model",), ("input", "path"), ("output", "path"), ("drift", "against"), *of_heads]


def _at(values: Any, path: KeyPath) -> Any:
    """What stands at a key path, or None."""
    for part in path:
        is_there = isinstance(values, dict) or (isinstance(values, list) and isinstance(part, int))
        try:
            values = values[part] if is_there else None
        except (KeyError, IndexError):
            return None
    return values


def resolve_path(path: str, folder: str) -> str:
    """`path` seen from `folder` (a local folder or a URL): absolute paths and URLs stay, `~` is expanded.

    Raises ValueError when a relative path climbs out of the bucket of `folder`, or names an unknown user's
    home folder.
    """
    if "://" in path:
        return path
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path!r}: {error}") from error
    if expanded.is_absolute() or "://" not in folder:
        return os.path.normpath(Path(folder) / expanded)
    scheme, rest = folder.split("://", 1)
    bucket, _, prefix = rest.partition("/")
    joined = posixpath.normpath(posixpath.join(prefix, path))
    if joined == ".." or joined.startswith("../"):
        raise ValueError(f"{path!r} leads out of {scheme}://{bucket}")
    return f"{scheme}://{bucket}" + ("" if joined == "." else f"/{joined}")
