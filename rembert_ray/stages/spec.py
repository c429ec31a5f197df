"""What every stage of a job knows: one frozen, picklable object that the driver makes before Ray starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from rembert_ray.engine.documents import WindowOptions
from rembert_ray.models.config import EncoderConfig
from rembert_ray.storage.filesystem import RETRY_BUDGET_S
from rembert_ray.storage.location import Location
from rembert_ray.tasks.base import Task, output_schema


@dataclass(frozen=True)
class JobSpec:
    """A job as the stages see it.

    columns: the word that the task uses for a column -> its name in the corpus.
    kept: the columns that are copied, with their types; renamed: those of them that get another name.
    windows: how long documents are read.
    precision: a word of `engine.precision.DTYPES`; `auto` is decided before.
    runs_on_gpu: whether infer actors use CUDA; not left to what a machine happens to have.
    batch_tokens: token budget of a forward pass; None for the device's default.
    n_threads: threads of one infer actor on CPU; None leaves torch's own choice.
    storage_s: seconds for which a store that does not answer is tried again.
    silence_s: seconds without a sign of life after which a worker with a shard in hand is ended.
    footer: further values for the footer of every object.
    log: how workers write their logs, a style of `report.narration`.
    """

    task: Task
    config: EncoderConfig
    model: Location
    output: Location
    columns: dict[str, str]
    kept: pa.Schema
    windows: WindowOptions
    fingerprint: str
    plan_id: str
    run_id: str
    precision: str
    runs_on_gpu: bool = False
    batch_tokens: int | None = None
    n_threads: int | None = None
    storage_s: float = RETRY_BUDGET_S
    silence_s: float = 300.0
    footer: dict[str, str] = field(default_factory=dict)
    log: Literal["words", "keyvalue", "json"] = "words"
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """The output's schema: the same for every object of the job."""
        kept = [column.with_name(self.renamed.get(column.name, column.name)) for column in self.kept]
        return output_schema(self.task, self.config, pa.schema(kept))
