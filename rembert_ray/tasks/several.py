"""`task: several`. Two or more heads over one encoder that runs once: for instance a vector and a label for each text.

Each head is a task of its own with its own model folder; the encoders in these folders must be equal, tensor by tensor.
Every head reads the same windows of the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rembert_ray.engine.documents import Decodable
from rembert_ray.models.config import EncoderConfig, RemBertConfig
from rembert_ray.models.weight_map import BASE, Weight, model_weights
from rembert_ray.ragged import splits
from rembert_ray.storage.location import locate
from rembert_ray.tasks import base
from rembert_ray.text.shown import Shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.storage.location import Location

    SeveralModels = torch.nn.ModuleList


TOKEN, WINDOW = "token.", "window."


class SharedHead(base.Parameters):
    """One of the heads."""

    task: str = Field(description="a task that reads one text: embed, tag, classify")
    model: str | None = Field(default=None, description="folder or URL of its model; null: the manifest's `model`")
    prefix: str = Field(default="", description="put before the names of its columns")
    head: dict[str, Any] = Field(default={}, description="parameters of the task")

    @model_validator(mode="after")
    def _check_task(self) -> SharedHead:
        known = {name for name in base.task_names() if issubclass(base.find_task(name), base.TextTask)}
        if self.task not in known - {Several.name}:
            raise PydanticCustomError("task", "{task} is no task that reads one text", {"task": repr(self.task)})
        try:
            made = self.make()
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise PydanticCustomError("head", "head.{place}: {what}", {"place": place, "what": first["msg"]}) from None
        if not made.reads_whole_texts:
            raise PydanticCustomError("windows", "it reads other windows than the text's: run it as a job of its own")
        return self

    def make(self) -> base.TextTask:
        """The task with its parameters."""
        kind = cast(type[base.TextTask], base.find_task(self.task))
        return kind(kind.Parameters.model_validate(self.head))


class SeveralParameters(base.Parameters):
    """The `head` section of `task: several`."""

    heads: list[SharedHead] = Field(default=[], description="two or more heads over the same encoder")


class _TokenNames:
    """The names of values that are per token."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and f".{TOKEN}" in name


class SeveralHead:
    """Every head over the same hidden states; results are named `<number of the head>.token.<name>`, or `.window.`."""

    token_values = _TokenNames()
    reads: Reads = "all"

    def __init__(self, heads: list[Head], keeps_special_tokens: list[bool]) -> None:
        self.heads = heads
        self.keeps_special_tokens = keeps_special_tokens

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """What each head returns; values of tokens that a head does not read are zeros."""
        reduced: dict[str, Tensor] = {}
        without_special, is_text = _without_special_tokens(batch)
        for number, (head, keeps_special) in enumerate(zip(self.heads, self.keeps_special_tokens, strict=True)):
            part = batch if keeps_special else without_special
            for name, value in head.reduce(part.select(hidden, head.reads), part).items():
                is_token = name in head.token_values
                if is_token and not keeps_special:
                    spread = value.new_zeros(len(batch.kept), *value.shape[1:])
                    spread[is_text] = value
                    value = spread
                reduced[f"{number}.{TOKEN if is_token else WINDOW}{name}"] = value
        return reduced


def _without_special_tokens(batch: DeviceBatch) -> tuple[DeviceBatch, Tensor]:
    """The batch with only tokens of the text kept, and which of its kept tokens these are."""
    window = batch.kept_lengths.new_tensor(range(len(batch.kept_lengths))).repeat_interleave(batch.kept_lengths)
    bounds = batch.cu_seqlens.long()
    # In every template the first and the last token of a window are special.
    is_text = (batch.kept != bounds[:-1][window]) & (batch.kept != bounds[1:][window] - 1)
    n_kept = batch.kept_lengths.new_zeros(len(batch.kept_lengths)).index_add_(0, window, is_text.to(window.dtype))
    return replace(batch, kept=batch.kept[is_text], kept_lengths=n_kept), is_text


class Several(base.TextTask):
    """Several heads over one encoder."""

    name: ClassVar[str] = "several"
    model_head: ClassVar[str] = BASE
    Parameters: ClassVar[type[base.Parameters]] = SeveralParameters
    keeps_special_tokens: ClassVar[bool] = True
    parameters: SeveralParameters

    def __init__(self, parameters: SeveralParameters) -> None:
        super().__init__(parameters)
        self.tasks = [head.make() for head in parameters.heads]
        self.has_offsets = any(task.has_offsets for task in self.tasks)
        self.configs: list[EncoderConfig] = []

    def parts(self, model: Location) -> list[tuple[str, base.Task, Location]]:
        """See `Task.parts`."""
        heads = zip(self.parameters.heads, self.tasks, strict=True)
        return [
            (f"heads.{number}", task, model if head.model is None else locate(head.model))
            for number, (head, task) in enumerate(heads)
        ]

    def set_configs(self, configs: list[EncoderConfig]) -> None:
        """See `Task.set_configs`."""
        self.configs = configs

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        if len(self.tasks) < 2:
            return [("heads", f"{len(self.tasks)} head(s)", "list two or more, or run the task by its own name")]
        names = [name for columns in self._columns(config) for name in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        fix = "give one of the heads a prefix"
        of_heads = [
            (f"heads.{number}.head.{key}", what, fix)
            for number, (task, own) in enumerate(zip(self.tasks, self.configs, strict=False))
            for key, what, fix in task.faults(own)
        ]
        return [*(("heads", f"more than one head writes {name!r}", fix) for name in twice), *of_heads]

    def weights(self, config: EncoderConfig) -> list[Weight]:
        """See `Task.weights`: those of the encoder; the heads are checked in their own folders."""
        return model_weights(config, BASE, with_pooler=False)

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """The columns of all heads, in order, with their prefixes."""
        fields = [field.with_name(name) for columns in self._columns(config) for name, field in columns.items()]
        return pa.schema(fields)

    def _columns(self, config: EncoderConfig) -> list[dict[str, pa.Field]]:
        configs = self.configs or [config] * len(self.tasks)
        return [
            {head.prefix + field.name: field for field in task.schema(own)}
            for head, task, own in zip(self.parameters.heads, self.tasks, configs, strict=True)
        ]

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`, under the names of the heads' columns."""
        found: dict[str, pa.Array] = {}
        for head, task in zip(self.parameters.heads, self.tasks, strict=True):
            own = rows.select([name for name in rows.column_names if name.startswith(head.prefix)])
            own = own.rename_columns([name.removeprefix(head.prefix) for name in own.column_names])
            name = head.prefix.rstrip("_.") or task.name
            found |= {f"{name}.{key}": values for key, values in task.features(own).items()}
        return found

    def heads(self) -> list[tuple[str, str, base.Task]]:
        """See `Task.heads`."""
        pairs = zip(self.parameters.heads, self.tasks, strict=True)
        return [(head.prefix.rstrip("_.") or task.name, head.prefix, task) for head, task in pairs]

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: what the heads show, in one text."""
        found = Shown(text="" if inputs is None else inputs["text"])
        for name, prefix, task in self.heads():
            own = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
            shown = task.show(own, inputs)
            if not found.text:
                found = replace(found, text=shown.text)
            marks = shown.marks if shown.text == found.text else ()
            found = replace(
                found,
                marks=(*found.marks, *(replace(mark, label=prefix + mark.label) for mark in marks)),
                bars=(*found.bars, *(replace(bar, group=name) for bar in shown.bars)),
                facts=(*found.facts, *((prefix + key, value) for key, value in shown.facts)),
            )
        return found

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: each head has its own, see `heads`."""
        raise TypeError("several has an outcome for each of its heads")

    def load_model(
        self, folder: Location, config: EncoderConfig, dtype: torch.dtype, device: torch.device
    ) -> SeveralModels:
        """See `Task.load_model`; only the first model keeps its encoder."""
        from torch import nn

        models = nn.ModuleList()
        for (_, task, place), own in zip(self.parts(folder), self.configs, strict=True):
            model = task.load_model(place, own, dtype, device)
            if models:
                model.encoder = models[0].encoder
            models.append(model)
        return models

    def bind(self, model: SeveralModels) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        bound = [task.bind(own) for task, own in zip(self.tasks, model, strict=True)]
        keeps = [task.keeps_special_tokens for task in self.tasks]
        return bound[0][0], SeveralHead([head for _, head in bound], keeps)

    def render(self, row: Mapping[str, Any]) -> str:
        """What each head would show, one after the other."""
        columns = [
            [head.prefix + name for name in task.schema(RemBertConfig()).names]
            for head, task in zip(self.parameters.heads, self.tasks, strict=True)
        ]
        written = {name for names in columns for name in names}
        shared = {name: value for name, value in row.items() if name not in written}
        shown = []
        for head, task, names in zip(self.parameters.heads, self.tasks, columns, strict=True):
            own = {name.removeprefix(head.prefix): row[name] for name in names}
            shown.append(task.render(shared | own))
        return " | ".join(shown)

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        columns: dict[str, pa.Array] = {}
        for number, (head, task, own) in enumerate(zip(self.parameters.heads, self.tasks, self.configs, strict=True)):
            keeps_special = task.keeps_special_tokens
            part = _part_of(rows, f"{number}.", keeps_special)
            columns |= {head.prefix + name: column for name, column in task.decode(part, own).items()}
        return columns


def _part_of(rows: Decodable, prefix: str, keeps_special: bool) -> Decodable:
    """What one head sees: its own values, without those of special tokens if it does not read them."""
    of_tokens = _without(prefix + TOKEN, rows.values)
    of_windows = _without(prefix + WINDOW, rows.values)
    if keeps_special:
        return replace(rows, values=of_tokens | of_windows)
    last = np.cumsum(rows.n_windows) - 1
    first = last - rows.n_windows + 1
    n_kept = rows.n_kept.copy()
    bounds = splits(rows.n_kept)
    is_text = np.ones(bounds[-1], dtype=np.bool_)
    is_text[bounds[:-1][first]] = False
    is_text[bounds[1:][last] - 1] = False
    n_kept[first] -= 1
    n_kept[last] -= 1
    of_tokens = {name: value[is_text] for name, value in of_tokens.items()}
    return replace(rows, n_kept=n_kept, values=of_tokens | of_windows)


def _without(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
