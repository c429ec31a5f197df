"""`task: classify`. Labels or scores a text, or a pair of texts, with a sequence classification model.

Labels, scores and their order are those of Hugging Face's TextClassificationPipeline. What it has not: a document of
several windows, whose logits are combined before they become scores, and a threshold for models with several labels
a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions
from rembert_ray.engine.packing import Long
from rembert_ray.engine.pairs import window_longer
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import SEQUENCE_CLASSIFICATION
from rembert_ray.ragged import splits
from rembert_ray.tasks import base
from rembert_ray.text.shown import Bar, Shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import ForSequenceClassification
    from rembert_ray.tokenizers.base import PretrainedTokenizer

Function = Literal["softmax", "sigmoid", "none"]
FunctionOrAuto = Literal["auto", "softmax", "sigmoid", "none"]
Floats = NDArray[np.float32]

MAX_RENDERED = 5
SCORE = pa.struct(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


class ClassifyParameters(base.Parameters):
    """The `head` section of `task: classify`."""

    top_k: int | None = Field(default=None, ge=1, description="labels that are written in `scores`; null: all")
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="for models with several labels a text: only labels with at least this score are written; "
        "`label` and `score` are null where there is none",
    )
    combine: Literal["mean", "max"] = Field(
        default="mean", description="how the logits of the windows of a long document become one"
    )
    function: FunctionOrAuto = Field(
        default="auto",
        description="what makes scores of logits; auto: none for regression, sigmoid for several labels a text and for "
        "a single label, else softmax, as the model's configuration says",
    )
    segments: bool = Field(
        default=True,
        description="token type 1 for the second text of a pair, as RemBERT was trained; false: 0 for both, as "
        "pipelines of transformers 5 feed it",
    )


class ClassifyHead:
    """The classifier over the first token of each window."""

    token_values: frozenset[str] = frozenset()
    reads: Reads = "first"

    def __init__(self, classifier: torch.nn.Module) -> None:
        self.classifier = classifier

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`logits` float32 `[windows, labels]`."""
        return {"logits": self.classifier(hidden).float()}


class Classify(base.TextTask):
    """Sequence classification and regression."""

    name: ClassVar[str] = "classify"
    model_head: ClassVar[str] = SEQUENCE_CLASSIFICATION
    Parameters: ClassVar[type[base.Parameters]] = ClassifyParameters
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("text",), ("text", "pair"))
    parameters: ClassifyParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`scores`, best first, and its first element as `label` and `score` (null where `scores` is empty)."""
        scores = pa.list_(pa.field("element", SCORE, nullable=False))
        fields = [pa.field("label", pa.string()), pa.field("score", pa.float32()), pa.field("scores", scores)]
        return pa.schema(fields)

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        parameters, found = self.parameters, []
        function = find_function(parameters.function, config)
        is_regression = config.problem_type == "regression"
        if parameters.threshold is not None and function != "sigmoid":
            what = "this model is for regression" if is_regression else f"scores of this model are by {function}"
            fix = "leave it out; or set head.function to sigmoid if the model was trained with several labels a text"
            found.append(("threshold", f"{what}, not for each label on its own", fix))
        if parameters.top_k is not None and is_regression:
            found.append(("top_k", "this model is for regression and ranks no labels", "leave it out"))
        if function == "softmax" and len(config.labels) == 1:
            found.append(("function", "the softmax of one label is always 1", "sigmoid, none or auto"))
        return found

    def bind(self, model: ForSequenceClassification) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, ClassifyHead(model.head)

    def render(self, row: Mapping[str, Any]) -> str:
        """`label 0.912, label 0.055, ...`."""
        scores = row["scores"]
        line = ", ".join(f"{one['label']} {one['score']:.3f}" for one in scores[:MAX_RENDERED])
        return (line or "no label") + (f" ... {len(scores) - MAX_RENDERED} more" if len(scores) > MAX_RENDERED else "")

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`; of a pair the longer text is cut into windows, each with all of the other one."""
        if "pair" not in inputs:
            return super().encode(inputs, tokenizer, options)
        first, second = (tokenizer.encode_batch(inputs[name], add_special_tokens=False) for name in ("text", "pair"))
        return window_longer(first, second, tokenizer, options, segments=self.parameters.segments)

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`. Where a text may have several labels, they all count."""
        if self.parameters.threshold is None:
            return {name: rows[name].combine_chunks() for name in ("label", "score")}
        scores = rows["scores"].combine_chunks()
        flat = pc.list_flatten(scores)
        found = {name: pc.struct_field(flat, name) for name in ("label", "score")}
        return found | {"labels": pc.list_value_length(scores)}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: labels with bars; scores that are no shares, as those of regression, as facts."""
        texts = [] if inputs is None else [inputs[name] for name in self.form]
        scores = [(one["label"], one["score"]) for one in row["scores"]]
        shown = Shown(text="\n".join(texts))
        if all(0 <= score <= 1 for _, score in scores):
            return replace(shown, bars=tuple(Bar(label, score) for label, score in scores))
        return shown.plus(*((label, f"{score:.3f}") for label, score in scores))

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: the label; where a text may have several, those that are written, sorted."""
        if self.parameters.threshold is None:
            return base.Outcome(rows["label"].combine_chunks(), rows["score"].combine_chunks())
        labels = [" ".join(sorted(one["label"] for one in row or ())) for row in rows["scores"].to_pylist()]
        return base.Outcome(pa.array(labels, pa.string()), rows["score"].combine_chunks())

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        parameters = self.parameters
        logits = combine_windows(rows.values["logits"], rows.n_windows, parameters.combine)
        scores = score(logits, find_function(parameters.function, config))
        # Equal scores stay in the order of the model's labels, as in the pipeline.
        order = np.argsort(-scores, axis=1, kind="stable")[:, : parameters.top_k]
        ranked = np.take_along_axis(scores, order, axis=1)
        is_written = np.ones_like(ranked, np.bool_) if parameters.threshold is None else ranked >= parameters.threshold
        names = pa.array(config.labels, pa.string())
        columns = [names.take(pa.array(order[is_written])), pa.array(ranked[is_written])]
        written = pa.StructArray.from_arrays(columns, fields=list(SCORE))
        has_none = ~is_written[:, 0]
        return {
            "label": names.take(pa.array(order[:, 0], mask=has_none)),
            "score": pa.array(ranked[:, 0], mask=has_none),
            "scores": pa.ListArray.from_arrays(pa.array(splits(is_written.sum(1)).astype(np.int32)), written),
        }


def find_function(asked: FunctionOrAuto, config: EncoderConfig) -> Function:
    """What makes scores of logits; `auto` is what TextClassificationPipeline takes for a configuration."""
    if asked != "auto":
        return asked
    if config.problem_type == "regression":
        return "none"
    is_multi_label = config.problem_type == "multi_label_classification" or len(config.labels) == 1
    return "sigmoid" if is_multi_label else "softmax"


def score(logits: Floats, function: Function) -> Floats:
    """Logits `[rows, labels]` to scores of the same shape."""
    if function == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return cast(Floats, powers / powers.sum(axis=1, keepdims=True))
    if function == "sigmoid":
        # The power of a very small logit is infinite, and its score 0.
        with np.errstate(over="ignore"):
            return cast(Floats, 1 / (1 + np.exp(-logits)))
    return logits


def combine_windows(logits: Floats, n_windows: Long, how: Literal["mean", "max"]) -> Floats:
    """Logits of windows `[windows, labels]` to logits of rows `[rows, labels]`; every row has a window."""
    first = splits(n_windows)[:-1]
    if how == "max":
        return cast(Floats, np.maximum.reduceat(logits, first, axis=0))
    return cast(Floats, np.add.reduceat(logits, first, axis=0) / n_windows[:, None].astype(np.float32))
