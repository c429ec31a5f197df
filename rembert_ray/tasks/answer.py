"""`task: answer`. Finds the answer to a question in a context with an extractive question answering model.

Spans and scores are those of Hugging Face's QuestionAnsweringPipeline (transformers 4.x; 5 has none): the softmax of
the starts and of the ends over a window's context and its opening token, a span's score the product of the two, the
null score that of the opening token, the lowest of all windows. What differs:

- Answers of one row never overlap; the pipeline repeats a span for each window that holds it, and its neighbours.
- An answer neither begins nor ends with white space; if its last token is a lone '▁', the word behind is no part of it,
  and a lone '▁' is no answer.
- Words are found by white space, whatever the tokenizer, and not in scripts without it (see `text.words`).
- Spans are ranked by logarithms, so that very improbable ones are still told apart.
- A context without text has no answer; the pipeline raises. Tokens of the question are never an answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions, window_pairs
from rembert_ray.engine.packing import Long
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import QUESTION_ANSWERING
from rembert_ray.ragged import as_items, as_lists, first_items, flat_values, ragged_arange, splits
from rembert_ray.tasks import base
from rembert_ray.text.answers import Double, Span, TokenScores, answer_bounds, best_spans
from rembert_ray.text.shown import Mark, Shown
from rembert_ray.text.words import word_bounds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import ForQuestionAnswering
    from rembert_ray.tokenizers.base import PretrainedTokenizer

MAX_RENDERED = 3
OFFSETS, WINDOW_STARTS = "offsets", "window_starts"
ANSWER = pa.struct(
    [
        pa.field("answer", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
    ]
)


class AnswerParameters(base.Parameters):
    """The `head` section of `task: answer`."""

    top_k: int = Field(default=1, ge=1, description="answers that are written at most, best first")
    max_answer_tokens: int = Field(default=15, ge=1, description="the longest answer, before it grows to whole words")
    null_answer: bool = Field(
        default=False,
        description="whether 'no answer' competes, with the null score: an empty answer from 0 to 0",
    )
    align_to_words: bool = Field(
        default=True,
        description="whether answers grow to whole words, by white space; never in scripts that write none",
    )
    segments: bool = Field(
        default=True,
        description="token type 1 for the context, as RemBERT was trained; false: 0 for question and context",
    )


class AnswerHead:
    """Scores the tokens of the context, and the opening token, as start and as end."""

    token_values = frozenset({"start", "end"})
    reads: Reads = "all"

    def __init__(self, classifier: torch.nn.Module) -> None:
        self.classifier = classifier

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """Logits `start` and `end`, float32 `[kept]`."""
        start, end = self.classifier(hidden[batch.kept]).float().unbind(-1)
        return {"start": start, "end": end}


class Answer(base.Task):
    """Extractive question answering."""

    name: ClassVar[str] = "answer"
    model_head: ClassVar[str] = QUESTION_ANSWERING
    Parameters: ClassVar[type[base.Parameters]] = AnswerParameters
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("question", "context"),)
    parameters: AnswerParameters

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`answers`, best first, in characters of the context; `null_score`, to compare their scores with."""
        answers = pa.list_(pa.field("element", ANSWER, nullable=False))
        return pa.schema([pa.field("answers", answers), pa.field("null_score", pa.float32())])

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        n_outputs = len(config.id2label)
        what = f"the model has {n_outputs} outputs a token, a start and an end are two"
        return [] if n_outputs == 2 else [("", what, "name a question answering model, with two labels in config.json")]

    def bind(self, model: ForQuestionAnswering) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, AnswerHead(model.head)

    def render(self, row: Mapping[str, Any]) -> str:
        """`answer (0.912) | answer (0.055) ...`."""
        answers = row["answers"]
        line = " | ".join(f"{one['answer'] or 'no answer'} ({one['score']:.3f})" for one in answers[:MAX_RENDERED])
        rest = len(answers) - MAX_RENDERED
        return (line or "no answer") + (f" ... {rest} more" if rest > 0 else "")

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`; windows over the context, each with the whole question."""
        questions = tokenizer.encode_batch(inputs["question"], add_special_tokens=False)
        contexts = base.encode_bare(tokenizer, inputs["context"], with_offsets=True)
        assert contexts.offsets is not None
        documents = window_pairs(questions, contexts, tokenizer.template, options, segments=self.parameters.segments)
        offsets = as_lists(contexts.offsets, contexts.row_splits)
        return replace(documents, extras={**documents.extras, OFFSETS: offsets})

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`, of the best answer of each row."""
        answers = rows["answers"].combine_chunks()
        best = pc.list_flatten(pc.list_slice(answers, 0, 1))
        found = {"score": pc.struct_field(best, "score"), "characters": pc.utf8_length(pc.struct_field(best, "answer"))}
        return found | {"null_score": rows["null_score"].combine_chunks(), "answers": pc.list_value_length(answers)}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: the answers in their context, marked by their rank, under the question."""
        answers = list(enumerate(row["answers"], start=1))
        facts = [("null score", f"{row['null_score']:.3f}"), *([] if answers else [("answer", "none")])]
        if inputs is None:
            return Shown().plus(*((f"answer {rank}", _scored(one)) for rank, one in answers), *facts)
        marks = (Mark(one["start"], one["end"], f"answer {rank}", one["score"]) for rank, one in answers)
        empty = ((f"answer {rank}", _scored(one)) for rank, one in answers if not one["answer"])
        return Shown(title=inputs["question"], text=inputs["context"], marks=tuple(marks)).plus(*empty, *facts)

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: the best answer with its place, as the same words may stand there twice."""
        best = pc.list_slice(rows["answers"].combine_chunks(), 0, 1)
        flat = pc.list_flatten(best)
        start, end = (pc.struct_field(flat, name).cast(pa.string()) for name in ("start", "end"))
        place = pc.binary_join_element_wise(start, end, "-")
        texts = pc.binary_join_element_wise(pc.struct_field(flat, "answer"), place, " @ ")
        found = pc.binary_join(as_items(best, texts), "")
        return base.Outcome(found, first_items(as_items(best, pc.struct_field(flat, "score"))))

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        opening = splits(rows.n_kept)[:-1]
        starts, ends = (log_softmax(rows.values[name], rows.n_kept) for name in ("start", "end"))
        null_scores = np.minimum.reduceat(starts[opening] + ends[opening], splits(rows.n_windows)[:-1])
        parts = zip(
            rows.inputs["context"], _offsets(rows), _tokens(rows, starts, ends), null_scores.tolist(), strict=True
        )
        return {
            "answers": pa.array([self._answers(*part) for part in parts], self.schema(config).field("answers").type),
            "null_score": pa.array(np.exp(null_scores), pa.float32()),
        }

    def _answers(
        self, context: str, offsets: NDArray[np.int32], tokens: TokenScores, null_score: float
    ) -> list[dict[str, Any]]:
        """The answers of one row; of equally probable ones 'no answer' is the last, as in the pipeline."""
        parameters = self.parameters
        words = word_bounds(context) if parameters.align_to_words else None
        spans = best_spans(
            tokens,
            answer_bounds(context, offsets),
            words,
            max_tokens=parameters.max_answer_tokens,
            top_k=parameters.top_k,
        )
        if parameters.null_answer:
            spans = sorted([*spans, Span(null_score, 0, 0)], key=lambda span: -span.log_score)[: parameters.top_k]
        return [
            {"answer": context[start:end], "score": math.exp(log_score), "start": start, "end": end}
            for log_score, start, end in spans
        ]


def _scored(answer: Mapping[str, Any]) -> str:
    return f"{answer['answer'] or 'no answer'} ({answer['score']:.3f})"


def log_softmax(logits: NDArray[np.float32], lengths: Long) -> Double:
    """Logarithm of the softmax over each row of a ragged array, float64; no row is empty."""
    first = splits(lengths)[:-1]
    shifted: Double = logits.astype(np.float64) - np.repeat(np.maximum.reduceat(logits, first), lengths)
    shifted -= np.repeat(np.log(np.add.reduceat(np.exp(shifted), first)), lengths)
    return shifted


def _offsets(rows: Decodable) -> Iterator[NDArray[np.int32]]:
    """Characters of the context's tokens, `[tokens, 2]` for each row."""
    lists = rows.extras[OFFSETS]
    flat, bounds = flat_values(lists), splits(np.asarray(lists.value_lengths()))
    for first, last in pairwise(bounds.tolist()):
        yield flat[first:last]


def _tokens(rows: Decodable, starts: Double, ends: Double) -> Iterator[TokenScores]:
    """The scored tokens of each row, window after window, without the opening ones."""
    # The opening token stands where the token before the window would.
    index = ragged_arange(flat_values(rows.extras[WINDOW_STARTS]) - 1, rows.n_kept)
    room = ragged_arange(-rows.n_kept, rows.n_kept)
    is_context = np.ones(len(index), np.bool_)
    window_bounds = splits(rows.n_kept)
    is_context[window_bounds[:-1]] = False
    for first, last in pairwise(window_bounds[splits(rows.n_windows)].tolist()):
        kept = first + np.flatnonzero(is_context[first:last])
        yield TokenScores(starts[kept], ends[kept], -room[kept], index[kept])
