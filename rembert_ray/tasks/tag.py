"""`task: tag`. Labels words of a text (parts of speech, names) with a token classification model.

Output is that of Hugging Face's TokenClassificationPipeline, with `word` cut from the original text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions
from rembert_ray.engine.packing import Long
from rembert_ray.errors import nearest
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import TOKEN_CLASSIFICATION
from rembert_ray.ragged import as_items, splits
from rembert_ray.tasks import base
from rembert_ray.text.shown import Mark, Shown
from rembert_ray.text.spans import Aggregation, Entities, LabelScheme, decode_entities, find_word_starts, label_words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import ForTokenClassification
    from rembert_ray.tokenizers.base import PretrainedTokenizer

MAX_RENDERED = 14
NO_ENTITY = "no entity"
ENTITY = pa.struct(
    [
        pa.field("entity_group", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
    ]
)
TAGS = pa.field("tags", pa.list_(pa.field("element", pa.string())))


class TagParameters(base.Parameters):
    """The `head` section of `task: tag`."""

    aggregation: Aggregation = Field(
        default="simple",
        description="how pieces become entities, as aggregation_strategy of Hugging Face's pipeline",
    )
    ignore_labels: list[str] = Field(default=["O"], description="entities of these groups are not written")
    labels: list[str] | None = Field(default=None, description="only entities of these groups are written; null: all")
    min_score: float = Field(default=0.0, ge=0, le=1, description="entities that score less are not written")


class TagHead:
    """The classifier over the kept tokens; labels and scores leave the device, not logits."""

    token_values = frozenset({"label", "score", "probabilities"})
    reads: Reads = "all"

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


class Tag(base.TextTask):
    """Token classification."""

    name: ClassVar[str] = "tag"
    model_head: ClassVar[str] = TOKEN_CLASSIFICATION
    Parameters: ClassVar[type[base.Parameters]] = TagParameters
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("text",), ("words",))
    has_offsets = True
    parameters: TagParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`entities` in the order of the text; for `words`, `tags`, too: the label of each word, null without tokens.

        Characters count in the text, or in the words with a space between them.
        """
        entities = pa.field("entities", pa.list_(pa.field("element", ENTITY, nullable=False)))
        return pa.schema([entities, *([TAGS] if self.form == ("words",) else [])])

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        scheme = LabelScheme.from_labels(config.labels)
        known = set(scheme.labels if self.parameters.aggregation == "none" else scheme.group_names)
        unknown = [label for label in self.parameters.labels or [] if label not in known]
        return [("labels", f"the model has no {label!r}", nearest(label, known)) for label in unknown]

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`. Words are read as a text with a space between them, as the pipeline reads them."""
        return super().encode({"text": _texts(inputs)}, tokenizer, options)

    def bind(self, model: ForTokenClassification) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, TagHead(model.head, self.parameters.aggregation == "average")

    def render(self, row: Mapping[str, Any]) -> str:
        """`word/LABEL word/LABEL ...`."""
        entities = row["entities"]
        line = " ".join(f"{entity['word']}/{entity['entity_group']}" for entity in entities[:MAX_RENDERED])
        return line + (f" ... {len(entities) - MAX_RENDERED} more" if len(entities) > MAX_RENDERED else "")

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`."""
        entities = rows["entities"].combine_chunks()
        flat = pc.list_flatten(entities)
        found = {"label": pc.struct_field(flat, "entity_group"), "score": pc.struct_field(flat, "score")}
        return found | {"entities": pc.list_value_length(entities)}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: the entities in the text, or one after the other where there is no text."""
        entities = row["entities"]
        if inputs is None:
            text = " ".join(entity["word"] for entity in entities)
            ends = np.cumsum([len(entity["word"]) + 1 for entity in entities], dtype=np.int64) - 1
            places = [(int(end) - len(entity["word"]), int(end)) for entity, end in zip(entities, ends, strict=True)]
        else:
            (text,) = _texts({name: [value] for name, value in inputs.items()})
            places = [(entity["start"], entity["end"]) for entity in entities]
        marks = (
            Mark(start, end, entity["entity_group"], entity["score"])
            for (start, end), entity in zip(places, entities, strict=True)
        )
        return Shown(text=text, marks=tuple(marks))

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: `start-end:LABEL start-end:LABEL ...`."""
        entities = rows["entities"].combine_chunks()
        flat = pc.list_flatten(entities)
        start, end, label = (pc.struct_field(flat, name).cast(pa.string()) for name in ("start", "end", "entity_group"))
        each = pc.binary_join_element_wise(pc.binary_join_element_wise(start, end, "-"), label, ":")
        return base.Outcome(pc.binary_join(as_items(entities, each), " "))

    def steps(self, old: str, new: str) -> list[tuple[str, str]]:
        """See `Task.steps`: the labels of each place that is labelled otherwise."""
        before, after = (dict(item.split(":", 1) for item in text.split(" ") if ":" in item) for text in (old, new))
        places = sorted(before.keys() | after.keys())
        pairs = [(before.get(place, NO_ENTITY), after.get(place, NO_ENTITY)) for place in places]
        return [pair for pair in pairs if pair[0] != pair[1]]

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        assert rows.offsets is not None
        probabilities = rows.values.get("probabilities")
        if probabilities is None:
            labels, scores = rows.values["label"], rows.values["score"]
        else:
            labels, scores = probabilities.argmax(-1), probabilities.max(-1)
        row_splits, texts = splits(rows.n_tokens), _texts(rows.inputs)
        aggregation, own_words = self.parameters.aggregation, rows.inputs.get("words")
        word_of_token = word_starts = None
        if own_words is not None:
            word_of_token = _word_of_token(own_words, row_splits, rows.offsets)
            word_starts = np.diff(word_of_token, prepend=-1) > 0
        elif aggregation not in ("none", "simple"):
            word_starts = find_word_starts(texts, row_splits, rows.offsets, rows.is_unknown)
        found = decode_entities(
            row_splits,
            rows.offsets,
            labels,
            scores,
            LabelScheme.from_labels(config.labels),
            aggregation=aggregation,
            word_starts=word_starts,
            probabilities=probabilities,
            ignore_labels=self.parameters.ignore_labels,
            only_labels=self.parameters.labels,
            min_score=self.parameters.min_score,
        )
        columns = {"entities": _entities(found, texts)}
        if own_words is not None and word_of_token is not None:
            word_splits = splits([len(words) for words in own_words])
            ids = label_words(word_of_token, int(word_splits[-1]), labels, scores, aggregation, probabilities)
            names = pa.array(config.labels, pa.string()).take(pa.array(ids, mask=ids < 0))
            columns["tags"] = pa.ListArray.from_arrays(pa.array(word_splits.astype(np.int32)), names)
        return columns


def _texts(inputs: Mapping[str, list[Any]]) -> list[str]:
    return inputs["text"] if "text" in inputs else [" ".join(words) for words in inputs["words"]]


def _word_of_token(rows: list[list[str]], row_splits: Long, offsets: NDArray[np.int32]) -> Long:
    """For each token the index, among the words of all rows, of the word in which it ends; int64 `[tokens]`."""
    word_splits = splits([len(words) for words in rows])
    lengths = np.array([len(word) + 1 for words in rows for word in words], dtype=np.int64)
    starts_of_rows = splits(lengths)[word_splits[:-1]]
    # Words and the space behind each, one row after the other: a place in this for every token.
    places = np.repeat(starts_of_rows, np.diff(row_splits)) + np.maximum(offsets[:, 1] - 1, offsets[:, 0])
    found: Long = np.searchsorted(splits(lengths), places, side="right") - 1
    last = np.repeat(word_splits[1:] - 1, np.diff(row_splits))
    return np.minimum(found, last)


def _entities(found: Entities, texts: list[str]) -> pa.Array:
    names = pa.DictionaryArray.from_arrays(pa.array(found.name_ids), pa.array(found.names, pa.string()))
    words = pa.array(found.words(texts), pa.string())
    columns = [names.cast(pa.string()), found.scores, words, found.starts, found.ends]
    entities = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(ENTITY))
    return pa.ListArray.from_arrays(pa.array(found.row_splits.astype(np.int32)), entities)
