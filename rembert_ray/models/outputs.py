"""What `forward` returns. Names, order of fields and behaviour are those of Hugging Face's `ModelOutput`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from rembert_ray.models.cache import KeyValueCache

Tensors = tuple[Tensor, ...]


class ModelOutput(Mapping[str, Any]):
    """A dataclass that is also a mapping (`output["logits"]`) and a tuple (`output[0]`, `output[:2]`).

    Fields that are None are not in the mapping and not in the tuple.
    """

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return dict(self.items())[key]
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if getattr(self, f.name) is not None)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> Any:
        """Names and values of the fields that are not None, in order."""
        return {name: getattr(self, name) for name in self}.items()

    def to_tuple(self) -> tuple[Any, ...]:
        """Values of the fields that are not None, in order: what `return_dict=False` gives."""
        return tuple(getattr(self, name) for name in self)


@dataclass(eq=False)
class EncoderOutput(ModelOutput):
    """Output of an encoder or, with cache and cross-attention, of a decoder.

    last_hidden_state: `[batch, length, hidden]`.
    past_key_values: keys and values of all tokens so far.
    hidden_states: before the first layer and after each, `[batch, length, hidden]`.
    attentions, cross_attentions: of each layer, `[batch, heads, queries, keys]`.
    """

    last_hidden_state: Tensor
    past_key_values: KeyValueCache | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass(eq=False)
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Output of a bare model: `EncoderOutput` and `pooler_output` `[batch, hidden]`."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: Tensors | None = None
    past_key_values: KeyValueCache | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass(eq=False)
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """`loss`: scalar, of the next token; `logits`: `[batch, kept positions, vocabulary]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: KeyValueCache | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
    cross_attentions: Tensors | None = None


@dataclass(eq=False)
class MaskedLMOutput(ModelOutput):
    """`loss`: scalar, over labels that are not -100; `logits`: `[batch, length, vocabulary]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass(eq=False)
class SequenceClassifierOutput(ModelOutput):
    """`loss`: scalar; `logits`: `[batch, labels]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass(eq=False)
class MultipleChoiceModelOutput(ModelOutput):
    """`loss`: scalar; `logits`: `[batch, choices]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass(eq=False)
class TokenClassifierOutput(ModelOutput):
    """`loss`: scalar, over labels that are not -100; `logits`: `[batch, length, labels]`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None


@dataclass(eq=False)
class QuestionAnsweringModelOutput(ModelOutput):
    """`loss`: scalar, mean of start and end; `start_logits`, `end_logits`: `[batch, length]`."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: Tensors | None = None
    attentions: Tensors | None = None
