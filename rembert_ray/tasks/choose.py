"""`task: choose`. Picks one of several answers to each prompt with a multiple choice model.

Rows may have different numbers of choices. Each choice is one window, `prompt, choice`, as the examples of Hugging
Face's ForMultipleChoice have it; scores are the softmax of the logits over the row's choices. A prompt that is too
long loses its end, for each choice just as much as that choice needs; a choice is never cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions, too_long
from rembert_ray.engine.packing import Long
from rembert_ray.engine.pairs import pair_table
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import MULTIPLE_CHOICE
from rembert_ray.ragged import splits
from rembert_ray.tasks import base
from rembert_ray.text.shown import Bar, Shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import ForMultipleChoice
    from rembert_ray.tokenizers.base import PretrainedTokenizer

NO_CHOICES = "choices is empty"


class ChooseParameters(base.Parameters):
    """The `head` section of `task: choose`."""

    segments: bool = Field(
        default=True,
        description="token type 1 for the choice, as RemBERT was trained; false: 0 for prompt and choice",
    )


class ChooseHead:
    """The classifier over the first token of each window."""

    token_values: frozenset[str] = frozenset()
    reads: Reads = "first"

    def __init__(self, classifier: torch.nn.Module) -> None:
        self.classifier = classifier

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`logit` float32 `[windows]`, one for each choice."""
        return {"logit": self.classifier(hidden).squeeze(-1).float()}


class Choose(base.Task):
    """Multiple choice."""

    name: ClassVar[str] = "choose"
    model_head: ClassVar[str] = MULTIPLE_CHOICE
    Parameters: ClassVar[type[base.Parameters]] = ChooseParameters
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt", "choices"),)
    parameters: ChooseParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`choice`, the index of the best (the first, if equal), its text and score; `scores` of all, in order."""
        return pa.schema(
            [
                pa.field("choice", pa.int32()),
                pa.field("choice_text", pa.string()),
                pa.field("score", pa.float32()),
                pa.field("scores", pa.list_(pa.field("element", pa.float32(), nullable=False))),
            ]
        )

    def bind(self, model: ForMultipleChoice) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, ChooseHead(model.head)

    def render(self, row: Mapping[str, Any]) -> str:
        """The choice and all scores."""
        scores = ", ".join(f"{score:.3f}" for score in row["scores"])
        return f"{row['choice']}: {row['choice_text']} ({scores})"

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`. `n_tokens` counts the prompt once; `long_documents: window` truncates it, too."""
        prompts = tokenizer.encode_batch(inputs["prompt"], add_special_tokens=False)
        choices = tokenizer.encode_batch(list(chain.from_iterable(inputs["choices"])), add_special_tokens=False)
        n_rows, n_choices = len(prompts), np.array([len(row) for row in inputs["choices"]], np.int64)
        row = np.repeat(np.arange(n_rows), n_choices)
        capacity = options.max_tokens - tokenizer.template.size(has_pair=True)
        n_prompt, n_choice = prompts.lengths[row], choices.lengths
        errors = _unusable(n_choices, n_prompt, n_choice, capacity, options)
        is_good = ~np.isin(np.arange(n_rows), list(errors))
        window = np.flatnonzero(is_good[row])
        row, n_prompt, n_choice = row[window], n_prompt[window], n_choice[window]
        n_read = np.minimum(n_prompt, capacity - n_choice)
        zero = np.zeros_like(window)
        firsts, seconds = prompts.windows(row, zero, n_read), choices.windows(window, zero, n_choice)
        n_tokens, truncated = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.bool_)
        np.maximum.at(n_tokens, row, n_read)
        np.add.at(n_tokens, row, n_choice)
        truncated[row[n_read < n_prompt]] = True
        return Documents(
            windows=pair_table(firsts, seconds, tokenizer.template, segments=self.parameters.segments),
            n_windows=np.where(is_good, n_choices, 0),
            n_tokens=n_tokens,
            truncated=truncated,
            errors=errors,
        )

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`."""
        choice = rows["choice"].combine_chunks().cast(pa.string())
        return {"choice": choice, "score": rows["score"].combine_chunks()}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: the choices with bars under the prompt."""
        best, scores = row["choice"], row["scores"]
        if inputs is None:
            choices = [row["choice_text"] if index == best else f"choice {index}" for index in range(len(scores))]
        else:
            choices = inputs["choices"]
        bars = (Bar(text, score) for text, score in zip(choices, scores, strict=True))
        choice = ("choice", f"{best}: {row['choice_text']}")
        return Shown(text="" if inputs is None else inputs["prompt"], bars=tuple(bars)).plus(choice)

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: index and text of the choice."""
        choice = rows["choice"].combine_chunks().cast(pa.string())
        texts = pc.binary_join_element_wise(choice, rows["choice_text"].combine_chunks(), ": ")
        return base.Outcome(texts, rows["score"].combine_chunks())

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        logits, n_choices = rows.values["logit"], rows.n_windows
        bounds = splits(n_choices)
        best = find_best(logits, n_choices)
        scores = softmax(logits, n_choices)
        texts = [texts[index] for texts, index in zip(rows.inputs["choices"], best.tolist(), strict=True)]
        return {
            "choice": pa.array(best.astype(np.int32)),
            "choice_text": pa.array(texts, pa.string()),
            "score": pa.array(scores[bounds[:-1] + best]),
            "scores": pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(scores)),
        }


def _unusable(
    n_choices: Long, n_prompt: Long, n_choice: Long, capacity: int, options: WindowOptions
) -> Mapping[int, str]:
    """The rows that cannot be read, and why; `n_prompt` and `n_choice` are `[choices of all rows]`."""
    errors = {int(row): NO_CHOICES for row in np.flatnonzero(n_choices == 0)}
    row, first = np.repeat(np.arange(len(n_choices)), n_choices), splits(n_choices)
    for window in np.flatnonzero(n_choice > capacity).tolist():
        index = window - int(first[row[window]])
        reason = f"choices[{index}] has {n_choice[window]:,} tokens, a window takes {capacity:,}"
        errors.setdefault(int(row[window]), reason)
    if options.long_documents == "error":
        n_all = n_prompt + n_choice
        for window in np.flatnonzero(n_all > capacity).tolist():
            errors.setdefault(int(row[window]), too_long(int(n_all[window]), capacity))
    return errors


def softmax(logits: NDArray[np.float32], lengths: Long) -> NDArray[np.float32]:
    """Softmax over each row of a ragged array; no row is empty."""
    first = splits(lengths)[:-1]
    powers = np.exp(logits - np.repeat(np.maximum.reduceat(logits, first), lengths))
    return cast(NDArray[np.float32], powers / np.repeat(np.add.reduceat(powers, first), lengths))


def find_best(logits: NDArray[np.float32], lengths: Long) -> Long:
    """Index of the largest value of each row of a ragged array, the first one of equals; no row is empty."""
    first = splits(lengths)[:-1]
    places = np.flatnonzero(logits == np.repeat(np.maximum.reduceat(logits, first), lengths))
    return places[np.searchsorted(places, first)] - first
