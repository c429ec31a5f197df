"""The encoder of both families: embeddings, layers and, in a pre-norm architecture, one last norm.

It has two entries. `forward` takes what Hugging Face's models take (padded, with masks and a cache). `encode` takes
ids of any shape with a `Layout` that says where sequences begin and end; the engine calls it with packed batches.
"""

from __future__ import annotations

from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from rembert_ray.models.cache import KeyValueCache
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.layers import Layer
from rembert_ray.models.layout import Layout, PaddedLayout, attention_bias
from rembert_ray.models.narrowed_layout import NarrowedLayout
from rembert_ray.models.outputs import EncoderOutput


class EncoderOptions(TypedDict, total=False):
    """Arguments that the `forward` of a head hands on to `Encoder.forward` as they are."""

    encoder_hidden_states: Tensor | None
    encoder_attention_mask: Tensor | None
    past_key_values: KeyValueCache | None
    use_cache: bool | None
    output_attentions: bool | None
    output_hidden_states: bool | None


class Embeddings(nn.Module):
    """Word, segment and position embeddings, summed and normalized."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size, padding = config.embedding_size, config.pad_token_id
        self.pad_token_id = padding
        self.positions_skip_padding = config.positions_skip_padding
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=padding)
        # Where padding has a position of its own, its vector does not learn either.
        padding_position = padding if config.positions_skip_padding else None
        self.position = nn.Embedding(config.max_position_embeddings, size, padding_idx=padding_position)
        self.token_type = nn.Embedding(config.type_vocab_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: Tensor, position_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """`words` are word vectors `[..., embedding size]`; ids have the shape before the last axis."""
        # (word + segment) + position, in this order, is Hugging Face's sum to the last bit.
        total = words + self.token_type(token_type_ids) + self.position(position_ids)
        return cast(Tensor, self.dropout(self.norm(total)))

    def positions(self, input_ids: Tensor, layout: Layout) -> Tensor:
        """Position of each token in its own sequence, by the rule of the architecture.

        RemBERT counts all tokens, from 0. RoBERTa counts the *ids* that are not padding, from `pad_token_id + 1`,
        whatever the mask says, and puts padding at `pad_token_id` (fairseq's `make_positions`).
        """
        if not self.positions_skip_padding:
            return layout.count(torch.ones_like(input_ids)) - 1
        assert self.pad_token_id is not None
        is_token = input_ids != self.pad_token_id
        return layout.count(is_token) * is_token + self.pad_token_id


class Encoder(nn.Module):
    """Ids (or word vectors) to hidden states; a decoder if the configuration says so."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if faults := config.faults(type(config).__name__):
            raise ValueError("; ".join(fault.what for fault in faults))
        self.config = config
        self.embeddings = Embeddings(config)
        self.projection: nn.Module = nn.Identity()
        if config.has_embedding_projection:
            self.projection = nn.Linear(config.embedding_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm: nn.Module = nn.Identity()
        if config.norm_first:
            self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def encode(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        layout: Layout,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        hidden_states: list[Tensor] | None = None,
        narrowed: NarrowedLayout | None = None,
    ) -> Tensor:
        """Last hidden states of ids in any layout.

        Args:
            input_ids: `[...]`, for instance `[tokens]` (packed) or `[batch, length]` (padded).
            token_type_ids: `[...]`, segment 0 or 1.
            layout: where sequences begin and end.
            position_ids: `[...]`, below `max_position_embeddings`; by default counted: see `Embeddings.positions`.
            inputs_embeds: `[..., embedding size]`, word vectors to take instead of those of the ids.
            hidden_states: where given, what goes into the first layer and what comes out of each is appended.
            narrowed: the same packed batch and the tokens of it that are read.

        Returns:
            `[..., hidden]`; of the tokens that are read, where `narrowed` is given: `[rows, hidden]`.
        """
        if position_ids is None:
            position_ids = self.embeddings.positions(input_ids, layout)
        words = self.embeddings.word(input_ids) if inputs_embeds is None else inputs_embeds
        hidden: Tensor = self.projection(self.embeddings(words, position_ids, token_type_ids))
        for layer in self.layers:
            if hidden_states is not None:
                hidden_states.append(hidden)
            if narrowed is not None and layer is self.layers[-1]:
                hidden = layer(hidden, narrowed, narrowed.rows)
            else:
                hidden = layer(hidden, layout)
        hidden = self.norm(hidden)
        if hidden_states is not None:
            hidden_states.append(hidden)
        return hidden

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> EncoderOutput:
        """What the `forward` of all models does with its inputs, as in Hugging Face.

        Args:
            input_ids: `[batch, length]`; or `inputs_embeds` instead.
            attention_mask: 1 for tokens to attend to: `[batch, past + length]` or `[batch, length, past + length]`.
            token_type_ids: `[batch, length]`, 0 by default.
            position_ids: `[batch or 1, length]`; by default by the architecture's rule (`Embeddings.positions`).
            inputs_embeds: `[batch, length, embedding size]`, with positions that count all tokens.
            encoder_hidden_states: `[batch, keys, hidden]`, what cross-attention of a decoder looks at.
            encoder_attention_mask: `[batch, keys]`.
            past_key_values: the cache that an earlier call returned; a decoder only.
            use_cache: whether a decoder starts a cache and returns it; by default what the configuration says.
            output_attentions: whether to return attention weights; by default what the configuration says.
            output_hidden_states: the same for hidden states.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; `encoder_hidden_states` for a decoder
                without cross-attention.
        """
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if config.is_decoder and encoder_hidden_states is not None and not config.add_cross_attention:
            raise ValueError("encoder_hidden_states need a model whose configuration has add_cross_attention=True")
        table = self.embeddings.word.weight
        given = cast(Tensor, inputs_embeds if input_ids is None else input_ids)
        batch, length = given.shape[:2]
        cache = past_key_values if config.is_decoder else None
        if cache is None and config.is_decoder and (config.use_cache if use_cache is None else use_cache):
            cache = KeyValueCache()
        past = 0 if cache is None else cache.get_seq_length()
        recorded = _recorders(config, output_attentions, output_hidden_states)
        layout = PaddedLayout(
            attention_bias(attention_mask, length, past + length, table, is_causal=config.is_decoder),
            cache,
            encoder_hidden_states if config.is_decoder else None,
            attention_bias(encoder_attention_mask, length, 0, table, is_causal=False),
            recorded["attentions"],
            recorded["cross_attentions"],
        )
        if input_ids is None:
            # Word vectors have no ids to count: no token is padding.
            input_ids = torch.full((batch, length), -1, device=given.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros(batch, length, dtype=torch.long, device=given.device)
        hidden = self.encode(input_ids, token_type_ids, layout, position_ids, inputs_embeds, recorded["hidden_states"])
        found = {name: tuple(tensors) for name, tensors in recorded.items() if tensors}
        return EncoderOutput(hidden, cache, **found)


def _recorders(
    config: EncoderConfig, output_attentions: bool | None, output_hidden_states: bool | None
) -> dict[str, list[Tensor] | None]:
    attentions = config.output_attentions if output_attentions is None else output_attentions
    hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    return {
        "hidden_states": [] if hidden_states else None,
        "attentions": [] if attentions else None,
        "cross_attentions": [] if attentions and config.add_cross_attention else None,
    }
