"""What a task is, how it is found by its name, and how a text becomes windows. No torch, no ray.

A task is one file in this folder. It says which columns it reads, which parameters the manifest's `head` may hold,
which columns it writes, what the model computes on the device (`bind`), and how small arrays become columns
(`decode`). Everything else (reading, packing, committing) is the same for all tasks.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import BASE, Weight, model_weights
from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.text.windows import cut_windows

if TYPE_CHECKING:
    import torch

    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.checkpoint import PretrainedModel
    from rembert_ray.storage.location import Location
    from rembert_ray.tokenizers.rembert import RemBertTokenizer

# In every output, after the columns of the task.
COMMON_FIELDS = (
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("n_windows", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("error", pa.string()),
)


class Parameters(BaseModel):
    """Base of the `head` section of a task: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Documents:
    """The encoded documents of a shard: what the device needs and what decoding needs.

    windows: all windows, document after document.
    n_windows: int64 `[rows]`, windows of each row; 0 for a row that has an error.
    n_tokens: int64 `[rows]`, tokens of the text without special tokens.
    offsets: int32 `[tokens, 2]`, characters of the original text, or None for a task without offsets.
    is_unknown: bool `[tokens]`, tokens that the vocabulary lacks; None where offsets are.
    """

    windows: WindowTable
    n_windows: Long
    n_tokens: Long
    offsets: NDArray[np.int32] | None
    is_unknown: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Decodable:
    """The good rows of a shard, for `Task.decode`.

    texts: the original texts.
    n_tokens, offsets, is_unknown: see `Documents`.
    n_windows, n_kept: int64 `[rows]`, `[windows]`: windows of each row, tokens that were read of each window.
    values: what the head returned, first axis kept tokens or windows, row after row.
    """

    texts: list[str]
    n_tokens: Long
    offsets: NDArray[np.int32] | None
    is_unknown: NDArray[np.bool_] | None
    n_windows: Long
    n_kept: Long
    values: Mapping[str, NDArray[Any]]


class Task(ABC):
    """One task with its parameters. Cheap to make, picklable; the model is loaded by `load_model`."""

    name: ClassVar[str]
    model_head: ClassVar[str]
    """One of `models.weight_map.HEADS`."""
    Parameters: ClassVar[type[Parameters]]
    input_columns: ClassVar[tuple[str, ...]] = ("text",)
    has_offsets: ClassVar[bool] = False
    reads_special_tokens: ClassVar[bool] = False
    """Whether the [CLS] that opens a document and the [SEP] that closes it are among the kept tokens."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters

    @property
    def has_pooler(self) -> bool:
        """Whether a bare encoder (`weight_map.BASE`) is loaded with its pooler."""
        return False

    def weights(self, config: EncoderConfig) -> list[Weight]:
        """The weights that a model folder must hold for this task."""
        return model_weights(config, self.model_head, with_pooler=self.has_pooler)

    @abstractmethod
    def schema(self, config: EncoderConfig) -> pa.Schema:
        """The columns that the task writes, without `COMMON_FIELDS`."""

    def load_model(
        self, folder: Location, config: EncoderConfig, dtype: torch.dtype, device: torch.device
    ) -> PretrainedModel:
        """The model, in evaluation mode, on the device; its family is the configuration's."""
        from rembert_ray.models.auto import model_class

        options = {"add_pooling_layer": self.has_pooler} if self.model_head == BASE else {}
        found = model_class(config, self.model_head)
        return found.from_pretrained(folder, config=config, dtype=dtype, device=device, strict=True, **options)

    @abstractmethod
    def bind(self, model: Any) -> tuple[Encoder, Head]:
        """The encoder and the head of a loaded model, for the runner."""

    @abstractmethod
    def render(self, row: Mapping[str, Any]) -> str:
        """A row of the output as a line for a person."""

    @abstractmethod
    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """The task's columns for the good rows of a shard, by name."""

    def encode(self, texts: list[str], tokenizer: RemBertTokenizer, capacity: int, overlap: int) -> Documents:
        """Tokenize texts and cut them into windows of at most `capacity` tokens, special tokens not counted."""
        encoding = tokenizer.encode_batch(texts, add_special_tokens=False, with_offsets=self.has_offsets)
        n_tokens = encoding.lengths
        cut = cut_windows(n_tokens, capacity, overlap)
        n_windows = np.bincount(cut.row, minlength=len(texts)).astype(np.int64)
        lengths = (cut.end - cut.start).astype(np.int64)
        starts = splits(lengths + 2)
        ids = np.full(starts[-1], tokenizer.cls_token_id, dtype=np.int32)
        ids[starts[1:] - 1] = tokenizer.sep_token_id
        ids[ragged_arange(starts[:-1] + 1, lengths)] = encoding.ids[
            ragged_arange(encoding.row_splits[cut.row] + cut.start, lengths)
        ]
        kept_starts, kept_ends = 1 + cut.owned_start - cut.start, 1 + cut.owned_end - cut.start
        if self.reads_special_tokens:
            last = np.cumsum(n_windows) - 1
            kept_starts[last - n_windows + 1] -= 1
            kept_ends[last] += 1
        windows = WindowTable(ids, starts, kept_starts, kept_ends)
        is_unknown = encoding.ids == tokenizer.unk_token_id if self.has_offsets else None
        return Documents(windows, n_windows, n_tokens, encoding.offsets, is_unknown)


def output_schema(task: Task, config: EncoderConfig, kept: pa.Schema) -> pa.Schema:
    """The whole output: kept columns, the task's columns, the columns that every output has."""
    return pa.schema([*kept, *task.schema(config), *COMMON_FIELDS])


def task_names() -> list[str]:
    """The words that `task:` may be: the files of this folder."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in modules if module.name != "base")


def find_task(name: str, where: str = "task") -> type[Task]:
    """The task class of a name: `tag` is `Tag` in `tasks/tag.py`.

    Raises:
        UnusableError: there is no such task.
    """
    if name not in task_names():
        raise UnusableError(Fault(where, f"unknown task {name!r}", nearest(name, task_names())))
    module = import_module(f"rembert_ray.tasks.{name}")
    task: type[Task] = getattr(module, name.title().replace("_", ""))
    return task
