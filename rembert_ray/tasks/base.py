"""What a task is, how it is found by its name, and how a text becomes windows. No torch, no ray.

A task is one file in this folder. It says which columns it reads, which parameters the manifest's `head` may hold,
which columns it writes, what the model computes on the device (`bind`), and how small arrays become columns
(`decode`). Everything else (reading, packing, committing) is the same for all tasks.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions, window_texts
from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import BASE, Weight, model_weights
from rembert_ray.text.shown import Shown
from rembert_ray.text.spans import trim_blanks

if TYPE_CHECKING:
    import torch

    from rembert_ray.engine.runner import Encoder, Engine, Head
    from rembert_ray.storage.location import Location
    from rembert_ray.tokenizers.base import PretrainedTokenizer
    from rembert_ray.tokenizers.encoding import Encoding

# Columns of these names hold lists of text; all others hold text.
LIST_COLUMNS = frozenset({"words", "choices"})
# In every output, after the columns of the task.
COMMON_FIELDS = (
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("n_windows", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("error", pa.string()),
)


class Outcome(NamedTuple):
    """What a row came to, for a comparison; what a task has not is None, for all rows.

    text: the result, equal texts being equal results; null: none. score: of the result. vectors: float32 `[rows,
    dimensions]`, zeros where there is none; their angle is compared then.
    """

    text: pa.Array | None = None
    score: pa.Array | None = None
    vectors: NDArray[np.float32] | None = None


class Parameters(BaseModel):
    """Base of the `head` section of a task: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Task(ABC):
    """One task with its parameters. Cheap to make, picklable; the model is loaded by `load_model`."""

    name: ClassVar[str]
    model_head: ClassVar[str]
    """One of `models.weight_map.HEADS`."""
    Parameters: ClassVar[type[Parameters]]
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    """Sets of columns that the task can read, the usual one first. Columns of `LIST_COLUMNS` are lists of text."""
    has_offsets: bool = False
    """Whether `decode` wants the characters of each token."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.form = self.input_forms[0]
        """The columns that the manifest names: one of `input_forms`."""

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

    def load_model(self, folder: Location, config: EncoderConfig, dtype: torch.dtype, device: torch.device) -> Any:
        """What `bind` takes, in evaluation mode, on the device; the family is the configuration's."""
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
    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """A row of the output, without an error, as a person should see it, for a terminal or a page to draw.

        `inputs`: what the task read, by the names of `form`; None where it cannot be had.
        """

    @abstractmethod
    def outcome(self, rows: pa.Table) -> Outcome:
        """What counts as the result of each row when two outputs are compared; of rows with an error anything.

        `rows`: the task's columns of an output, at least.
        """

    def steps(self, old: str, new: str) -> list[tuple[str, str]]:
        """What the change from one `Outcome.text` to another one is made of, to be counted: pairs of old and new."""
        return [(old, new)]

    def heads(self) -> list[tuple[str, str, Task]]:
        """The tasks whose columns are in the output: (name, prefix of the columns, task); itself if it is one."""
        return [(self.name, "", self)]

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """What a report counts and a drift check compares, by name: arrays of text or of numbers, of any length.

        `rows`: rows of an output without an error. Nulls are left out of the counts.
        """
        return {}

    def vectors(self, rows: pa.Table) -> NDArray[np.float32] | None:
        """The vectors of these rows of an output, `[vectors, dimensions]`; None for tasks that write none."""
        return None

    @abstractmethod
    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """The task's columns for the good rows of a shard, by name."""

    @abstractmethod
    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """Tokenize the good rows of a shard and cut them into windows; `inputs` are the columns of one form."""

    def engine(self, model: Any, device: torch.device, batch_tokens: int | None) -> Engine:
        """What runs windows through a loaded model."""
        from rembert_ray.engine.runner import Runner

        encoder, head = self.bind(model)
        return Runner(encoder, head, device, batch_tokens)

    def parts(self, model: Location) -> list[tuple[str, Task, Location]]:
        """The tasks that this one is made of: (key of the head, task, its model folder); itself if it is one."""
        return [("", self, model)]

    def set_configs(self, configs: list[EncoderConfig]) -> None:
        """Take the configurations of the models of `parts`, in their order. A task of one part needs none."""
        return

    def take_tokenizer(self, folder: Location, tokenizer: PretrainedTokenizer) -> list[str]:
        """Take what the task needs of its model's tokenizer, once and before `faults`; most need nothing.

        Returns:
            What a person should know of parameters that can be used but may not mean what they seem to: a line each.
        """
        return []

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """Parameters that do not go with this model: (key of the head, what is wrong, what to do)."""
        return []


def encode_bare(tokenizer: PretrainedTokenizer, texts: list[str], *, with_offsets: bool) -> Encoding:
    """Tokens of texts without the template's; offsets without blanks at either end, whatever the tokenizer."""
    encoding = tokenizer.encode_batch(texts, add_special_tokens=False, with_offsets=with_offsets)
    if encoding.offsets is None or not tokenizer.offsets_hold_blanks:
        return encoding
    return replace(encoding, offsets=trim_blanks(texts, encoding.row_splits, encoding.offsets))


class TextTask(Task):
    """A task that reads one text a row and cuts a long one into windows."""

    keeps_special_tokens: ClassVar[bool] = False
    """Whether the tokens that open and close a document are among the kept ones."""

    @property
    def reads_whole_texts(self) -> bool:
        """Whether its windows are those of `window_texts` over the text: then it can share them with other heads."""
        return True

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`."""
        return window_texts(
            encode_bare(tokenizer, inputs["text"], with_offsets=self.has_offsets),
            tokenizer.template,
            options,
            keeps_special_tokens=self.keeps_special_tokens,
            unk_id=tokenizer.unk_token_id,
        )


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
