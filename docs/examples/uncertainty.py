"""`task: uncertainty`. How unsure a tagger is of each text, to choose what people should annotate next.

A file of this kind in `rembert_ray/tasks` is all that a task needs; its name is the word in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from rembert_ray.engine.documents import Decodable
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import TOKEN_CLASSIFICATION
from rembert_ray.ragged import splits
from rembert_ray.tasks import base
from rembert_ray.text.shown import Bar, Shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import ForTokenClassification


class UncertaintyParameters(base.Parameters):
    """The `head` section of `task: uncertainty`."""

    normalize: bool = Field(default=True, description="from 0, sure, to 1, no idea; false: nats")


class UncertaintyHead:
    """The classifier over the kept tokens; one number for each token leaves the device."""

    token_values = frozenset({"entropy"})
    reads: Reads = "all"

    def __init__(self, classifier: torch.nn.Module) -> None:
        self.classifier = classifier

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`entropy` float32 `[kept]`, of the distribution over labels, in nats; `hidden` is `[tokens, hidden]`."""
        log_shares = self.classifier(hidden[batch.kept]).float().log_softmax(-1)
        return {"entropy": -(log_shares.exp() * log_shares).sum(-1)}


class Uncertainty(base.TextTask):
    """Mean entropy of a token classification model."""

    name: ClassVar[str] = "uncertainty"
    model_head: ClassVar[str] = TOKEN_CLASSIFICATION
    Parameters: ClassVar[type[base.Parameters]] = UncertaintyParameters
    parameters: UncertaintyParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`uncertainty`, the mean over the tokens of the text."""
        return pa.schema([pa.field("uncertainty", pa.float32())])

    def bind(self, model: ForTokenClassification) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, UncertaintyHead(model.head)

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`: values come row after row, as many as the row has tokens; a text may have none."""
        sums = np.diff(np.concatenate([[0.0], np.cumsum(rows.values["entropy"])])[splits(rows.n_tokens)])
        means = sums / np.maximum(rows.n_tokens, 1)
        scale = np.log(max(len(config.labels), 2)) if self.parameters.normalize else 1.0
        return {"uncertainty": pa.array((means / scale).astype(np.float32))}

    def render(self, row: Mapping[str, Any]) -> str:
        """The number."""
        return f"uncertainty {row['uncertainty']:.3f}"

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`."""
        share = min(1.0, row["uncertainty"])
        return Shown(text="" if inputs is None else inputs["text"], bars=(Bar("uncertainty", share),))

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`."""
        return base.Outcome(score=rows["uncertainty"].combine_chunks())
