"""What sits on the encoder: the bare model and six heads, the same for both families.

A head is a small module over vectors of shape `[..., hidden]`, whatever their layout: `model.head(hidden[kept])` is
what the engine calls for the tokens of a packed batch. `forward` is Hugging Face's, for padded batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from rembert_ray.models import outputs
from rembert_ray.models.checkpoint import PretrainedModel
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.encoder import EncoderOptions
from rembert_ray.models.generation import Generation
from rembert_ray.models.layers import ACTIVATIONS
from rembert_ray.models.weight_map import (
    BASE,
    CAUSAL_LM,
    MASKED_LM,
    MULTIPLE_CHOICE,
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)


class Pooler(nn.Module):
    """Dense and tanh over the vector of the first token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        return torch.tanh(self.dense(first))


class SequenceHead(nn.Module):
    """Dense, tanh and classifier over the vector of the first token; RoBERTa also drops out before the dense layer."""

    def __init__(self, config: EncoderConfig, n_labels: int, dropout: float, *, drops_input: bool) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(dropout if drops_input else 0.0)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(config.hidden_size, n_labels)

    def forward(self, first: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., labels]`."""
        return cast(Tensor, self.classifier(self.dropout(torch.tanh(self.dense(self.input_dropout(first))))))


class TokenHead(nn.Module):
    """A linear classifier over each token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, len(config.id2label))

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., labels]`."""
        return cast(Tensor, self.classifier(self.dropout(hidden)))


class LanguageModelHead(nn.Module):
    """Dense, activation, norm, and the product with the vocabulary (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.output_size)
        # RoBERTa's head has the exact GELU whatever the layers have, and those of its kind are tied.
        self.activation = ACTIVATIONS["gelu" if config.norm_first else config.hidden_act]()
        self.norm = nn.LayerNorm(config.output_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.output_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., hidden]` to `[..., vocabulary]`: give it only the positions that are asked for."""
        return cast(Tensor, self.decoder(self.norm(self.activation(self.dense(hidden)))))


class Model(PretrainedModel):
    """The bare encoder (or decoder), with or without the pooler."""

    head_name: ClassVar[str] = BASE

    def __init__(self, config: EncoderConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.initialize_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **options: Unpack[EncoderOptions],
    ) -> Any:
        """`BaseModelOutputWithPoolingAndCrossAttentions`; arguments as in `Encoder.forward`."""
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, **options)
        pooled = None if self.pooler is None else self.pooler(encoded.last_hidden_state[:, 0])
        output = outputs.BaseModelOutputWithPoolingAndCrossAttentions(pooler_output=pooled, **encoded)
        if self.gives_dataclass(return_dict):
            return output
        # In Hugging Face's tuple the cache comes before the hidden states, in its output after them.
        pooled_part = () if pooled is None else (pooled,)
        return (encoded.last_hidden_state, *pooled_part, *encoded.to_tuple()[1:])


class Labelled(PretrainedModel):
    """What the heads share whose `forward` takes `labels` and returns `loss` and `logits`."""

    output: ClassVar[Callable[..., outputs.ModelOutput]]

    def logits(self, hidden: Tensor) -> Tensor:
        """The head over hidden states `[batch, length, hidden]`."""
        return cast(Tensor, self.head(hidden))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy over the labels that are not -100."""
        return cross_entropy(logits.flatten(0, -2), labels.flatten())

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **options: Unpack[EncoderOptions],
    ) -> Any:
        """The class's `output` (a tuple for `return_dict=False`); arguments as in `Encoder.forward`.

        `labels` are those of the class: see its `loss`.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encoder(*inputs, **{**options, "use_cache": False})
        logits = self.logits(encoded.last_hidden_state)
        loss = None if labels is None else self.loss(logits, labels)
        return self.give(self.output(loss, logits, encoded.hidden_states, encoded.attentions), return_dict)


class ForMaskedLM(Labelled):
    """Predicts masked tokens; `labels` `[batch, length]`. For a few of many tokens call `head` on these alone."""

    head_name: ClassVar[str] = MASKED_LM
    output = outputs.MaskedLMOutput

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head = LanguageModelHead(config)
        self.initialize_weights()


class ForTokenClassification(Labelled):
    """Labels each token; `labels` `[batch, length]`."""

    head_name: ClassVar[str] = TOKEN_CLASSIFICATION
    output = outputs.TokenClassifierOutput

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head = TokenHead(config)
        self.initialize_weights()


class ForSequenceClassification(Labelled):
    """Labels or scores a text or a pair of texts; `labels` `[batch]`, or `[batch, labels]`."""

    head_name: ClassVar[str] = SEQUENCE_CLASSIFICATION
    output = outputs.SequenceClassifierOutput

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        drops_input = not config.pooler_is_in_sequence_head
        self.head = SequenceHead(config, len(config.id2label), config.head_dropout_prob, drops_input=drops_input)
        self.initialize_weights()

    def logits(self, hidden: Tensor) -> Tensor:
        """`[batch, labels]`."""
        return cast(Tensor, self.head(hidden[:, 0]))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error, cross-entropy, or binary cross-entropy per label, by `problem_type`.

        Without a `problem_type` the first labels decide, and it stays so, as in Hugging Face: regression for one
        label, single-label classification for whole numbers, else multi-label classification.
        """
        if self.config.problem_type is None:
            is_whole = labels.dtype in (torch.long, torch.int)
            kind = "single_label_classification" if is_whole else "multi_label_classification"
            self.config.problem_type = "regression" if logits.shape[-1] == 1 else kind
        if self.config.problem_type == "regression":
            return mse_loss(logits.squeeze(), labels.squeeze())
        if self.config.problem_type == "single_label_classification":
            return cross_entropy(logits, labels.flatten())
        return binary_cross_entropy_with_logits(logits, labels)


class ForMultipleChoice(PretrainedModel):
    """Scores each choice. Inputs have an axis for them, `[batch, choices, length]`; `labels` `[batch]`."""

    head_name: ClassVar[str] = MULTIPLE_CHOICE

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        # RoBERTa's multiple choice reads the pooler and takes the layers' dropout: unlike its sequence classifier.
        dropout = config.head_dropout_prob if config.pooler_is_in_sequence_head else config.hidden_dropout_prob
        self.head = SequenceHead(config, 1, dropout, drops_input=False)
        self.initialize_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **options: Unpack[EncoderOptions],
    ) -> Any:
        """`MultipleChoiceModelOutput`; every input as in `Encoder.forward` with a second axis for the choices."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if x is None else x.flatten(0, 1) for x in inputs]
        encoded = self.encoder(*flat, **{**options, "use_cache": False})
        n_choices = next(x.shape[1] for x in (input_ids, inputs_embeds) if x is not None)
        logits = self.head(encoded.last_hidden_state[:, 0]).view(-1, n_choices)
        loss = None if labels is None else cross_entropy(logits, labels)
        output = outputs.MultipleChoiceModelOutput(loss, logits, encoded.hidden_states, encoded.attentions)
        return self.give(output, return_dict)


class ForQuestionAnswering(PretrainedModel):
    """Scores each token as the start and as the end of the answer."""

    head_name: ClassVar[str] = QUESTION_ANSWERING

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.hidden_size, len(config.id2label))
        self.initialize_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool | None = None,
        **options: Unpack[EncoderOptions],
    ) -> Any:
        """`QuestionAnsweringModelOutput`; arguments as in `Encoder.forward`.

        `start_positions` and `end_positions` are tokens, `[batch]`; those outside of the row count for nothing.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encoder(*inputs, **{**options, "use_cache": False})
        start, end = self.head(encoded.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            length = start.shape[1]
            losses = [
                cross_entropy(scores, positions.flatten().clamp(0, length), ignore_index=length)
                for scores, positions in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        output = outputs.QuestionAnsweringModelOutput(loss, start, end, encoded.hidden_states, encoded.attentions)
        return self.give(output, return_dict)


class ForCausalLM(Generation):
    """Predicts the next token; `is_decoder` in the configuration makes the encoder causal."""

    head_name: ClassVar[str] = CAUSAL_LM
    caches_with_labels: ClassVar[bool] = True
    """Whether a cache comes back although labels are given: the one thing that Hugging Face's two families do apart."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head = LanguageModelHead(config)
        self.initialize_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Unpack[EncoderOptions],
    ) -> Any:
        """`CausalLMOutputWithCrossAttentions`; arguments as in `Encoder.forward`.

        `labels` are the ids themselves, `[batch, length]`: they are shifted here. `logits_to_keep` computes logits
        for this many last positions (0: for all) or, as a tensor, for these positions.
        """
        if labels is not None and not self.caches_with_labels:
            options = {**options, "use_cache": False}
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.encoder(*inputs, **options)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(encoded.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        others = {name: value for name, value in encoded.items() if name != "last_hidden_state"}
        return self.give(outputs.CausalLMOutputWithCrossAttentions(loss, logits, **others), return_dict)
