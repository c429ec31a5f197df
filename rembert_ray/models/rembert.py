"""RemBERT in torch, weight-compatible with Hugging Face's (Chung et al. 2020, arXiv:2010.12821).

A model has two entries: `forward`, which takes what Hugging Face's takes (padded), and `encode`, which takes ids,
positions and segments of any shape with a `Layout` that says where sequences begin and end.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from rembert_ray.models.checkpoint import PretrainedModel
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.layers import Attention, FeedForward, PostNormLayer
from rembert_ray.models.layout import Layout, PaddedLayout
from rembert_ray.models.outputs import BaseModelOutputWithPooling, TokenClassifierOutput
from rembert_ray.models.weight_map import BASE, TOKEN_CLASSIFICATION, Weight, rembert_weights, without_prefix


class RemBertEmbeddings(nn.Module):
    """Word, segment and position embeddings, summed and normalized, at the (small) input embedding size."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        size = config.input_embedding_size
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, size)
        self.token_type = nn.Embedding(config.type_vocab_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, position_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """`words` are word vectors `[..., input_embedding_size]`; ids have the shape before the last axis."""
        # (word + segment) + position, in this order, is Hugging Face's sum to the last bit.
        total = words + self.token_type(token_type_ids) + self.position(position_ids)
        return cast(Tensor, self.dropout(self.norm(total)))


class RemBertEncoder(nn.Module):
    """The mapping from embedding to hidden size (no norm after it), then the layers."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.input_embedding_size, config.hidden_size)
        self.layers = nn.ModuleList(
            PostNormLayer(
                Attention(config.hidden_size, config.num_attention_heads, config.attention_probs_dropout_prob),
                FeedForward(config.hidden_size, config.intermediate_size, config.hidden_act),
                config.layer_norm_eps,
                config.hidden_dropout_prob,
            )
            for _ in range(config.num_hidden_layers)
        )

    def forward(self, embedded: Tensor, layout: Layout) -> Tensor:
        """`[..., input_embedding_size]` to `[..., hidden]`."""
        hidden: Tensor = self.projection(embedded)
        for layer in self.layers:
            hidden = layer(hidden, layout)
        return hidden


class RemBertPooler(nn.Module):
    """Dense and tanh over the vector of the first token."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """`[sequences, hidden]` to `[sequences, hidden]`."""
        return torch.tanh(self.dense(first))


class RemBertModel(PretrainedModel):
    """The bare encoder, with or without the pooler."""

    head: ClassVar[str] = BASE

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = RemBertEmbeddings(config)
        self.encoder = RemBertEncoder(config)
        self.pooler = RemBertPooler(config) if add_pooling_layer else None
        self.initialize_weights()

    def weight_map(self) -> list[Weight]:
        """See `PretrainedModel.weight_map`."""
        return without_prefix(rembert_weights(self.config, self.head, with_pooler=self.pooler is not None))

    def encode(self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor, layout: Layout) -> Tensor:
        """Last hidden states of ids in any layout.

        Args:
            input_ids: `[...]`, for instance `[tokens]` (packed) or `[batch, length]` (padded).
            position_ids: `[...]`, below `max_position_embeddings`.
            token_type_ids: `[...]`, segment 0 or 1.
            layout: where sequences begin and end.

        Returns:
            `[..., hidden]`.
        """
        words = self.embeddings.word(input_ids)
        return cast(Tensor, self.encoder(self.embeddings(words, position_ids, token_type_ids), layout))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Hugging Face's `RemBertModel.forward` for the encoder.

        Args:
            input_ids: `[batch, length]`; or `inputs_embeds` instead.
            attention_mask: 1 for tokens to attend to: `[batch, length]` or `[batch, length, length]`.
            token_type_ids: `[batch, length]`, 0 by default.
            position_ids: `[batch or 1, length]`; by default 0, 1, 2, ... also under left padding.
            inputs_embeds: `[batch, length, input_embedding_size]`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds` are given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        words = self.embeddings.word(input_ids) if inputs_embeds is None else inputs_embeds
        batch, length = words.shape[:2]
        if position_ids is None:
            position_ids = torch.arange(length, device=words.device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros(batch, length, dtype=torch.long, device=words.device)
        layout = PaddedLayout.from_mask(attention_mask, words.dtype)
        hidden = self.encoder(self.embeddings(words, position_ids, token_type_ids), layout)
        pooled = self.pooler(hidden[:, 0]) if self.pooler is not None else None
        return BaseModelOutputWithPooling(hidden, pooled)


class RemBertForTokenClassification(PretrainedModel):
    """The encoder with a linear classifier over each token."""

    head: ClassVar[str] = TOKEN_CLASSIFICATION

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(config)
        self.rembert = RemBertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.initialize_weights()

    def weight_map(self) -> list[Weight]:
        """See `PretrainedModel.weight_map`."""
        return rembert_weights(self.config, self.head, with_pooler=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TokenClassifierOutput:
        """See `RemBertModel.forward`; `labels` is `[batch, length]`, -100 where no label counts."""
        encoded = self.rembert(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.view(-1, self.config.num_labels), labels.view(-1))
        return TokenClassifierOutput(logits, loss)
