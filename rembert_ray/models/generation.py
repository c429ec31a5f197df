"""`generate`: what a causal model writes after a prompt, with the arguments and results of Hugging Face's.

The parts: `generation_options` (what may be set), `continuation` (rows that grow), `sampling` (from logits to tokens),
`beam_search`. This file checks the call, prepares the prompts and puts the answer together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rembert_ray.models.beam_search import n_candidates, search_beams
from rembert_ray.models.checkpoint import PretrainedModel
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.continuation import Continuation, move_padding_left
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.sampling import adjust, adjust_for_sampling, draw, row_generators


class Generation(PretrainedModel):
    """Adds `generate` to a causal model."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        seed: int | Sequence[int] | None = None,
        **options: Any,
    ) -> Tensor:
        """Continue each prompt: greedily, by sampling or by beam search.

        Greedy and beam search give what `transformers` 5.23 gives, token for token, except:
        - RoBERTa-PreLayerNorm's positions are those of `forward`: see `Continuation`.
        - Prompts may be padded on either side, and a row goes on after its own last token. (Hugging Face's goes on
          after the padding.) The prompts come back as they were given, new tokens in the columns after them.
        - The end of a row is followed by `pad_token_id` in beam search, too, even where that is 0. (Hugging Face's
          takes the stop id then.)
        - A prompt and `max_new_tokens` that do not fit the positions are an error.

        Args:
            input_ids: prompts, `[batch, length]`.
            attention_mask: `[batch, length]`, 0 for padding; by default 0 where `input_ids` is the padding id, unless
                that is a stop id, too.
            token_type_ids: `[batch, length]`; a new token is of the segment of the one before it.
            encoder_hidden_states: `[batch, keys, hidden]` for a decoder with cross-attention.
            encoder_attention_mask: `[batch, keys]`.
            seed: for sampling: a number, or one for each row that is returned: a row then draws the same whatever its
                batch mates and its device. Without it torch's global generator decides.
            **options: see `GenerationOptions`.

        Returns:
            int64 `[batch * num_return_sequences, length + new]` on the model's device.

        Raises:
            ValueError: an option that is unknown, out of range or contradicts another; inputs that do not fit each
                other or the model's positions; a model that is no decoder.
        """
        chosen = GenerationOptions.from_keywords(options)
        _check_call(self.config, chosen, seed)
        _check_shapes(input_ids, attention_mask, token_type_ids, encoder_hidden_states, encoder_attention_mask)
        input_ids = input_ids.to(self.device, torch.long)
        mask = _mask_of(input_ids, attention_mask, chosen, self.config)
        if token_type_ids is not None:
            token_type_ids = token_type_ids.to(self.device)
        rows = Continuation(
            self,
            *move_padding_left(input_ids, mask, token_type_ids, self.config.pad_token_id),
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache=chosen.use_cache,
        )
        _check_length(rows, chosen, self.config)
        stop_ids = torch.tensor(chosen.stop_ids(self.config), dtype=torch.long, device=self.device)
        # Where nothing says what padding is, no row ends before the others and none is padded.
        padding = chosen.padding_id(self.config) or 0
        if chosen.num_beams > 1:
            new_ids = search_beams(rows, chosen, stop_ids, padding)
        else:
            generators = row_generators(seed, len(input_ids) * chosen.num_return_sequences)
            new_ids = _continue_rows(rows, chosen, stop_ids, padding, generators)
        return torch.cat([input_ids.repeat_interleave(chosen.num_return_sequences, 0), new_ids], 1)


def _continue_rows(
    rows: Continuation,
    options: GenerationOptions,
    stop_ids: Tensor,
    padding: int,
    generators: Sequence[torch.Generator] | None,
) -> Tensor:
    """Greedily or by sampling: `[rows * num_return_sequences, longest]`, new tokens only; `rows` is used up."""
    logits = rows.next_logits()
    copies = torch.arange(len(logits), device=logits.device).repeat_interleave(options.num_return_sequences)
    rows.select_rows(copies)
    logits = logits[copies]
    running = torch.arange(len(copies), device=logits.device)
    new_ids = torch.full((len(copies), options.max_new_tokens), padding, device=logits.device)
    for n_new in range(1, options.max_new_tokens + 1):
        logits = adjust(logits, rows.ids, rows.mask, n_new - 1, stop_ids, options)
        if options.do_sample:
            own = None if generators is None else [generators[row] for row in running.tolist()]
            tokens = draw(adjust_for_sampling(logits, options), own)
        else:
            tokens = logits.argmax(-1)
        new_ids[running, n_new - 1] = tokens
        staying = (~torch.isin(tokens, stop_ids)).nonzero()[:, 0]
        if n_new == options.max_new_tokens or not len(staying):
            break
        running = running[staying]
        rows.select_rows(staying)
        rows.append(tokens[staying])
        logits = rows.next_logits()
    return new_ids[:, :n_new]


def _mask_of(
    input_ids: Tensor, attention_mask: Tensor | None, options: GenerationOptions, config: EncoderConfig
) -> Tensor:
    """The mask, int64 `[batch, length]`, by default from the padding id."""
    padding = options.padding_id(config)
    if attention_mask is not None:
        mask = (attention_mask.to(input_ids.device) != 0).long()
    elif padding is None or padding in options.stop_ids(config):
        mask = torch.ones_like(input_ids)
    else:
        mask = (input_ids != padding).long()
    if empty := (~mask.any(1)).nonzero()[:, 0].tolist():
        raise ValueError(f"rows {empty} of input_ids are padding only: a prompt has one token at least, such as bos")
    return mask


def _check_shapes(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    encoder_hidden_states: Tensor | None,
    encoder_attention_mask: Tensor | None,
) -> None:
    shape = input_ids.shape
    if input_ids.dim() != 2 or not input_ids.numel() or input_ids.is_floating_point():
        raise ValueError(f"input_ids is {tuple(shape)} {input_ids.dtype}: give ids [batch, length], not empty")
    of_tokens = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
    of_rows = {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
    for name, given in (of_tokens | of_rows).items():
        if given is not None and (given.shape != shape if name in of_tokens else len(given) != len(input_ids)):
            raise ValueError(f"{name} is {tuple(given.shape)} and does not fit input_ids, {tuple(shape)}")


def _check_call(config: EncoderConfig, options: GenerationOptions, seed: object) -> None:
    if not config.is_decoder:
        raise ValueError("generate needs a causal model: load it with is_decoder=True in its configuration")
    if seed is not None and not options.do_sample:
        raise ValueError("seed without sampling: set do_sample=True, or leave it out")
    needed = n_candidates(options, len(options.stop_ids(config)))
    if options.num_beams > 1 and needed > config.vocab_size:
        raise ValueError(f"num_beams {options.num_beams} needs {needed} ids, the vocabulary has {config.vocab_size}")


def _check_length(rows: Continuation, options: GenerationOptions, config: EncoderConfig) -> None:
    first = config.max_position_embeddings - config.max_tokens
    n_prompt = int(rows.positions().max()) + 1 - first
    if n_prompt + options.max_new_tokens > config.max_tokens:
        raise ValueError(
            f"a prompt of {n_prompt} tokens and {options.max_new_tokens} new ones do not fit the model's "
            f"{config.max_tokens} positions: shorten the prompt or set max_new_tokens"
        )
