"""What a checkpoint folder is: family, head, tasks that it can drive, labels, sizes, tokenizer, what does not fit.

Read from `config.json`, safetensors headers and the tokenizer's files; the digests read the whole of them. Of a folder
that cannot be used it tells what can be told, and why it cannot. No torch; it writes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rembert_ray.catalog import model_class_name
from rembert_ray.errors import Fault, UnusableError, printable
from rembert_ray.fingerprint import digest_model, digest_tokenizer
from rembert_ray.models.config import AutoConfig, EncoderConfig, read_config
from rembert_ray.models.inventory import DTYPES, Tensor, match, read_inventory
from rembert_ray.models.weight_map import BASE, HEAD_PREFIXES, HEADS, Weight, model_weights
from rembert_ray.plan import format_bytes
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import Location, exists, locate
from rembert_ray.tasks.base import Task, find_task, task_names
from rembert_ray.tokenizers.auto import check_tokenizer

MAX_LABELS_SHOWN = 20
MAX_NAMES_SHOWN = 12
# A task of several heads has no head of its own that a folder could hold.
OF_SEVERAL_FOLDERS = frozenset({"several"})
_SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "attention_heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "positions": "max_position_embeddings",
    "vocabulary": "vocab_size",
}


@dataclass
class Inspection:
    """What is known of a folder; what could not be found out is empty or None, and `faults` say why.

    tasks: those that the folder can drive, the one that it was made for first.
    made_for: the task of the head that config.json names, if it names one and the weights are there.
    head: what missing and unused names are about: the task asked for, else `made_for`.
    parameters: number of stored values by part: embeddings, layers, head, other.
    dtypes: safetensors type name -> number of tensors.
    unused: stored tensors that the head does not read.
    """

    folder: str
    family: str | None = None
    architectures: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    made_for: str | None = None
    head: str | None = None
    labels: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    weight_bytes: int = 0
    n_files: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    tokenizer: str | None = None
    tokenizer_size: int | None = None
    model_digest: str | None = None
    tokenizer_digest: str | None = None
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "faults": [vars(fault) for fault in self.faults]}

    def lines(self) -> Iterator[str]:
        """For a person; the faults are not among them."""
        for name, text in self._facts():
            if text:
                yield printable(f"{name:<14}{text}")

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "folder", self.folder
        yield "family", ", ".join([*([self.family] if self.family else []), *self.architectures])
        others = [task for task in self.tasks if task != self.made_for]
        own = [f"{self.made_for} (its own head)"] if self.made_for else []
        yield "tasks", ", ".join([*own, *others])
        yield "labels", f"{len(self.labels):,}{self._label_names()}" if self.labels else ""
        yield "sizes", ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in self.sizes.items())
        total = sum(self.parameters.values())
        parts = ", ".join(f"{part} {n:,}" for part, n in self.parameters.items())
        yield "parameters", f"{total:,}: {parts}" if total else ""
        dtypes = ", ".join(f"{dtype} ({n:,} tensors)" for dtype, n in self.dtypes.items())
        files = f"{self.n_files} file{'s' * (self.n_files != 1)}"
        yield "weights", f"{format_bytes(self.weight_bytes)} in {files}, {dtypes}" if dtypes else ""
        yield "tokenizer", f"{self.tokenizer}, {self.tokenizer_size:,} tokens" if self.tokenizer else ""
        digests = {"model": self.model_digest, "tokenizer": self.tokenizer_digest}
        yield "digests", ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items() if digest)
        if self.head is not None:
            yield f"for {self.head}", _completeness(self.missing, self.unused)

    def _label_names(self) -> str:
        is_named = any(label != f"LABEL_{index}" for index, label in enumerate(self.labels))
        return f": {_first(self.labels, MAX_LABELS_SHOWN)}" if is_named else ", without names"


def _completeness(missing: Sequence[str], unused: Sequence[str]) -> str:
    there = "every tensor is there" if not missing else f"{len(missing):,} missing: {_first(missing, MAX_NAMES_SHOWN)}"
    return there + (f"; {len(unused):,} not used: {_first(unused, MAX_NAMES_SHOWN)}" if unused else "")


def _first(names: Sequence[str], n_shown: int) -> str:
    return ", ".join(names[:n_shown]) + (f" and {len(names) - n_shown:,} more" if len(names) > n_shown else "")


def inspect_checkpoint(place: str, task: str | None = None) -> Inspection:
    """Look at the folder of a model: a path or a URL. `task` asks whether the folder can drive it.

    Raises:
        UnusableError: the place is none, or there is no such task.
        StorageError: the store does not answer.
    """
    folder = locate(place)
    wanted = find_task(task, "--task") if task is not None else None
    found = Inspection(str(folder))
    if not _is_there(folder):
        found.faults.append(Fault(str(folder), "nothing there", "check the spelling of the path"))
        return found
    config = inventory = None
    with _noted(found):
        config = _read_config(folder, found)
    with _noted(found):
        inventory = read_inventory(folder)
        _add_weights(found, inventory)
    with _noted(found):
        _add_tokenizer(found, folder, config)
    if config is not None and inventory is not None:
        found.tasks = driven_tasks(config, inventory)
        found.made_for = made_for(config, found.tasks)
        found.tasks.sort(key=lambda name: name != found.made_for)
        kind = wanted or (find_task(found.made_for) if found.made_for else None)
        _add_names(found, config, inventory, kind, is_asked_for=wanted is not None)
    # What is not there has its fault already.
    with _noted(found):
        found.model_digest = digest_model(folder) if config is not None and inventory is not None else None
    with _noted(found):
        found.tokenizer_digest = digest_tokenizer(folder) if found.tokenizer is not None else None
    return found


def _is_there(folder: Location) -> bool:
    try:
        return exists(folder)
    except storage_errors() as error:
        raise UnusableError(explain(str(folder), error)) from error


@contextmanager
def _noted(found: Inspection) -> Iterator[None]:
    try:
        yield
    except UnusableError as error:
        found.faults += [fault for fault in error.faults if fault not in found.faults]


def _read_config(folder: Location, found: Inspection) -> EncoderConfig:
    """The configuration; of one that is not ours, too, what it says goes into `found`."""
    values = read_config(folder)
    family, architectures = values.get("model_type"), values.get("architectures")
    found.family = family if isinstance(family, str) else None
    found.architectures = [str(name) for name in architectures] if isinstance(architectures, list) else []
    sizes = {name: values.get(key) for name, key in _SIZES.items()}
    found.sizes = {name: size for name, size in sizes.items() if type(size) is int}
    config = AutoConfig.from_pretrained(folder)
    found.labels = config.labels
    found.sizes = {name: getattr(config, key) for name, key in _SIZES.items()}
    # RoBERTa counts its positions from a number of its own.
    found.sizes["positions"] = config.max_tokens
    return config


def _add_weights(found: Inspection, inventory: Mapping[str, Tensor]) -> None:
    # Of families that are not ours, too.
    prefix = f"{(found.family or '').replace('-', '_')}."
    counts: Counter[str] = Counter()
    for name, tensor in inventory.items():
        counts[_part_of(name.removeprefix(prefix))] += math.prod(tensor.shape)
        found.weight_bytes += DTYPES.get(tensor.dtype, 0) * math.prod(tensor.shape)
    found.parameters = {part: counts[part] for part in ("embeddings", "layers", "head", "other") if counts[part]}
    found.dtypes = dict(Counter(tensor.dtype for tensor in inventory.values()).most_common())
    found.n_files = len({tensor.file for tensor in inventory.values()})


def _part_of(name: str) -> str:
    if name.startswith((*HEAD_PREFIXES, "pooler.")):
        return "head"
    # RemBERT's map from the width of its embeddings to that of its layers.
    if name.startswith(("embeddings.", "encoder.embedding_hidden_mapping_in.")):
        return "embeddings"
    return "layers" if name.startswith(("encoder.layer.", "LayerNorm.")) else "other"


def _add_tokenizer(found: Inspection, folder: Location, config: EncoderConfig | None) -> None:
    tokenizer = check_tokenizer(folder)
    found.tokenizer, found.tokenizer_size = type(tokenizer).__name__, len(tokenizer)
    if config is not None and len(tokenizer) > config.vocab_size:
        what = f"vocab_size is {config.vocab_size:,}, the tokenizer has {len(tokenizer):,} tokens"
        found.faults.append(Fault(str(folder), what, "take the tokenizer that the model was made with"))


def _add_names(
    found: Inspection,
    config: EncoderConfig,
    inventory: Mapping[str, Tensor],
    kind: type[Task] | None,
    *,
    is_asked_for: bool,
) -> None:
    """Missing and unused names for a task's head; without a task, the faults of the encoder alone."""
    if kind is None:
        weights = model_weights(config, BASE, with_pooler=False)
        found.faults += match(inventory, weights, config.base_model_prefix).faults(found.folder)
        return
    found.head = kind.name
    task = kind(kind.Parameters())
    fit = match(inventory, task.weights(config), config.base_model_prefix)
    used = {name for names in fit.sources.values() for name in names}
    found.missing = sorted((*fit.missing, *fit.missing_head))
    found.unused = sorted(inventory.keys() - used)
    found.faults += fit.faults(found.folder)
    if is_asked_for:
        found.faults += [Fault(found.folder, what, fix) for key, what, fix in task.faults(config) if not key]


def driven_tasks(config: EncoderConfig, inventory: Mapping[str, Tensor]) -> list[str]:
    """The tasks whose weights are all in a folder, with their default parameters."""
    names = [name for name in task_names() if name not in OF_SEVERAL_FOLDERS]
    return [name for name in names if _can_drive(find_task(name), config, inventory)]


def _can_drive(kind: type[Task], config: EncoderConfig, inventory: Mapping[str, Tensor]) -> bool:
    task = kind(kind.Parameters())
    weights: list[Weight] = task.weights(config)
    if match(inventory, weights, config.base_model_prefix).faults(""):
        return False
    # A fault of no key is the model's; one of a key is for the manifest to mend.
    return all(key for key, _, _ in task.faults(config))


def made_for(config: EncoderConfig, tasks: Sequence[str]) -> str | None:
    """The one of `tasks` whose head `architectures` of config.json names, or None."""
    heads = {head for head in HEADS for name in config.architectures if name.endswith(model_class_name(head))}
    return next((task for task in tasks if find_task(task).model_head in heads), None)
