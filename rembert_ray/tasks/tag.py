"""`task: tag`. Labels words of a text (parts of speech, names) with a token classification model.

Output is that of Hugging Face's TokenClassificationPipeline, with `word` cut from the original text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import TOKEN_CLASSIFICATION
from rembert_ray.ragged import splits
from rembert_ray.tasks import base
from rembert_ray.text.spans import Aggregation, LabelScheme, decode_entities, find_word_starts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.runner import DeviceBatch, Encoder, Head
    from rembert_ray.models.heads import ForTokenClassification

MAX_RENDERED = 14
ENTITY = pa.struct(
    [
        pa.field("entity_group", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
    ]
)


class TagParameters(base.Parameters):
    """The `head` section of `task: tag`."""

    aggregation: Aggregation = Field(
        default="simple",
        description="how pieces become entities, as aggregation_strategy of Hugging Face's pipeline",
    )
    ignore_labels: list[str] = Field(default=["O"], description="entities of these groups are not written")


class TagHead:
    """The classifier over the kept tokens; labels and scores leave the device, not logits."""

    per_token = True

    def __init__(self, classifier: torch.nn.Module, with_probabilities: bool) -> None:
        self.classifier = classifier
        self.with_probabilities = with_probabilities

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`probabilities` float32 `[kept, labels]`, or the best `label` int32 and its `score` float32 `[kept]`."""
        import torch

        probabilities = self.classifier(hidden[batch.kept]).float().softmax(-1)
        if self.with_probabilities:
            return {"probabilities": probabilities}
        score, label = probabilities.max(-1)
        return {"label": label.to(torch.int32), "score": score}


class Tag(base.Task):
    """Token classification."""

    name: ClassVar[str] = "tag"
    model_head: ClassVar[str] = TOKEN_CLASSIFICATION
    Parameters: ClassVar[type[base.Parameters]] = TagParameters
    has_offsets: ClassVar[bool] = True
    parameters: TagParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`entities`, in the order of the text."""
        return pa.schema([pa.field("entities", pa.list_(pa.field("element", ENTITY, nullable=False)))])

    def bind(self, model: ForTokenClassification) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, TagHead(model.head, self.parameters.aggregation == "average")

    def render(self, row: Mapping[str, Any]) -> str:
        """`word/LABEL word/LABEL ...`."""
        entities = row["entities"]
        line = " ".join(f"{entity['word']}/{entity['entity_group']}" for entity in entities[:MAX_RENDERED])
        return line + (f" ... {len(entities) - MAX_RENDERED} more" if len(entities) > MAX_RENDERED else "")

    def decode(self, rows: base.Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        assert rows.offsets is not None
        probabilities = rows.values.get("probabilities")
        if probabilities is None:
            labels, scores = rows.values["label"], rows.values["score"]
        else:
            labels, scores = probabilities.argmax(-1), probabilities.max(-1)
        row_splits = splits(rows.n_tokens)
        aggregation = self.parameters.aggregation
        by_word = aggregation not in ("none", "simple")
        found = decode_entities(
            row_splits,
            rows.offsets,
            labels,
            scores,
            LabelScheme.from_labels(config.labels),
            aggregation=aggregation,
            word_starts=find_word_starts(rows.texts, row_splits, rows.offsets, rows.is_unknown) if by_word else None,
            probabilities=probabilities,
            ignore_labels=self.parameters.ignore_labels,
        )
        names = pa.DictionaryArray.from_arrays(pa.array(found.name_ids), pa.array(found.names, pa.string()))
        words = pa.array(found.words(rows.texts), pa.string())
        columns = [names.cast(pa.string()), found.scores, words, found.starts, found.ends]
        entities = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(ENTITY))
        offsets = pa.array(found.row_splits.astype(np.int32))
        return {"entities": pa.ListArray.from_arrays(offsets, entities)}
