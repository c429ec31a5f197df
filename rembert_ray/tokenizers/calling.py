"""Text in, ids out: `encode_batch` for the jobs, and `__call__`, `encode` and `pad` as transformers has them.

The order is always the same: texts to ragged ids (`_encode_texts`, the subclass's), truncation, template, padding,
columns; `encode_batch` stops after the template. It must not know a vocabulary's format, and must not import torch,
but for `return_tensors="pt"`.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.batch_encoding import BatchEncoding, TensorKind, as_tensors
from rembert_ray.tokenizers.collation import Features, pad_features
from rembert_ray.tokenizers.encoding import Encoding, Lengths
from rembert_ray.tokenizers.limits import Limits, Padding, Truncation, resolve_limits
from rembert_ray.tokenizers.padding import flat_columns, pad_rows, to_array, to_lists
from rembert_ray.tokenizers.template import Template
from rembert_ray.tokenizers.text_input import TextInput, read_input
from rembert_ray.tokenizers.truncation import (
    Side,
    cut_overflow,
    keep_one_end,
    kept_lengths,
    take_one_at_a_time,
)
from rembert_ray.tokenizers.vocabulary import TokenVocabulary


class CallableTokenizer(TokenVocabulary):
    """The encoding side of `PretrainedTokenizer`."""

    model_input_names: ClassVar[Sequence[str]] = ("input_ids", "token_type_ids", "attention_mask")
    """Columns that a call returns unless told otherwise."""
    longest_first = staticmethod(take_one_at_a_time)
    """How truncation shares the room between two texts."""

    model_max_length: int
    padding_side: Side
    truncation_side: Side

    # -- what a subclass gives --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def template(self) -> Template:
        """Where the special tokens go, by their present ids."""

    @abstractmethod
    def _encode_texts(
        self, texts: Sequence[str], *, with_offsets: bool, with_words: bool, parse_special_tokens: bool
    ) -> Encoding:
        """Ids of each text, no template: `ids`, `row_splits`, and if asked `offsets` and `word_ids` (each token's word
        within its text, as the tokenizer itself sees words).

        Raises `TypeError` and `ValueError` naming the index of a text that is no `str` or has a lone surrogate.
        """

    # -- encoding ---------------------------------------------------------------------------------------------

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        with_offsets: bool = False,
        parse_special_tokens: bool = True,
    ) -> Encoding:
        """Tokenize n texts, or n pairs of texts, to flat arrays; nothing is padded or truncated.

        `parse_special_tokens`: special tokens written in a text become their ids (and take the white space
        that is theirs); False takes them as plain text. `with_offsets` costs about a fifth more time.

        Raises `ValueError` for a text with a lone surrogate, naming its index, and for unequal numbers of
        texts and pairs; `TypeError` for a text that is no `str`.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise TypeError("encode_batch takes a sequence of texts, not one str")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs: give one second text for each first")

        def encode(side: Sequence[str]) -> Encoding:
            return self._encode_texts(
                side, with_offsets=with_offsets, with_words=False, parse_special_tokens=parse_special_tokens
            )

        template = self.template if add_special_tokens else self.template.bare
        return template.apply(encode(texts), None if pairs is None else encode(pairs))

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_tensors: TensorKind | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        """Tokenize one text or many for the model, as transformers does.

        `text` and `text_pair`: see `text_input.read_input`. One text gives flat lists, many give lists of rows;
        `return_tensors` gives tensors [n, width] (one text: [1, width]). The columns are `input_ids` and as asked
        `token_type_ids`, `attention_mask` (None: what `model_input_names` says), `special_tokens_mask`,
        `offset_mapping` ([n, width, 2]), `length` [n] and `overflow_to_sample_mapping` [n].

        `truncation` True is 'longest_first'; `max_length` None is `model_max_length`. `return_overflowing_tokens`
        gives what is cut off as further rows that share `stride` tokens with their neighbour (see `truncation`).
        `padding` True is to the longest row, 'max_length' to `max_length`.

        Raises `ValueError` when a tensor cannot be made or a text cannot be made short enough, and `TypeError` for
        what is no text; warns where transformers does.
        """
        limits = resolve_limits(padding, truncation, max_length, self.model_max_length, pad_to_multiple_of)
        texts = read_input(text, text_pair, is_split_into_words)
        overlap = stride if return_overflowing_tokens else None
        rows, samples = self._encode_rows(texts, is_split_into_words, limits, add_special_tokens, overlap)
        if max_length is None:
            self._warn_if_too_long(rows)
        asked = {
            "input_ids": True,
            "token_type_ids": return_token_type_ids,
            "attention_mask": return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        names = [name for name, is_asked in asked.items() if self._is_returned(name, is_asked)]
        width = limits.padded_width(int(rows.lengths.max(initial=0))) if limits.pads else 0
        padded, is_token = pad_rows(rows, width, self.pad_token_id, check_side(padding_side or self.padding_side))
        per_row = {"length": padded.lengths} if return_length else {}
        if return_overflowing_tokens:
            per_row["overflow_to_sample_mapping"] = samples

        flat = flat_columns(padded, is_token)
        columns: dict[str, Any]
        if return_tensors is not None:
            columns = {name: to_array(flat[name], padded.row_splits, name) for name in names}
            columns = as_tensors({**columns, **per_row}, return_tensors)
        else:
            columns = {name: to_lists(flat[name], padded.row_splits) for name in names}
            columns |= {name: values.tolist() for name, values in per_row.items()}
            if not texts.is_batch and not return_overflowing_tokens:
                columns = {name: column[0] for name, column in columns.items()}
        return BatchEncoding(columns, padded, self.convert_ids_to_tokens)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """Only the `input_ids` of a call with these arguments."""
        return self(text, text_pair, **options)["input_ids"]

    def pad(
        self,
        encoded_inputs: Features,
        padding: Padding = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: TensorKind | None = None,
    ) -> BatchEncoding:
        """Pad encodings that were made before, as data collators do: see `collation.pad_features`."""
        limits = resolve_limits(padding, False, max_length, self.model_max_length, pad_to_multiple_of)
        side = check_side(padding_side or self.padding_side)
        has_mask = self._is_returned("attention_mask", return_attention_mask)
        return pad_features(encoded_inputs, limits, self.pad_token_id, side, has_mask, return_tensors)

    # -- steps of a call --------------------------------------------------------------------------------------

    def _encode_rows(
        self,
        texts: TextInput,
        is_split_into_words: bool,
        limits: Limits,
        add_special_tokens: bool,
        overlap: int | None,
    ) -> tuple[Encoding, Lengths]:
        """Rows with the template and within the limits, and the sample that each is of; `overlap` None: no overflow."""

        def encode(side: list[Any]) -> Encoding:
            if is_split_into_words:
                return self._encode_words(side, with_offsets=True)
            return self._encode_texts(side, with_offsets=True, with_words=True, parse_special_tokens=True)

        first, second = encode(texts.first), None if texts.second is None else encode(texts.second)
        template = self.template if add_special_tokens else self.template.bare
        samples = np.arange(len(first))
        if limits.truncates and limits.max_length is not None:
            room = limits.max_length - template.size(has_pair=second is not None)
            if room < 0:
                raise ValueError(
                    f"max_length is {limits.max_length}, but the special tokens alone are "
                    f"{template.size(has_pair=second is not None)}"
                )
            kept = kept_lengths(first, second, room, limits.truncation, self.longest_first)
            if overlap is not None:
                first, second, samples = cut_overflow(first, second, kept, overlap, self.truncation_side)
            else:
                first = keep_one_end(first, kept[0], self.truncation_side)
                if second is not None and kept[1] is not None:
                    second = keep_one_end(second, kept[1], self.truncation_side)
        return template.apply(first, second), samples

    def _encode_words(self, rows: list[list[str]], with_offsets: bool) -> Encoding:
        """Texts that are given as words: each word is tokenized as a text of its own, as transformers does it.

        Offsets count from the beginning of the word.
        """
        words = [word for row in rows for word in row]
        flat = self._encode_texts(words, with_offsets=with_offsets, with_words=False, parse_special_tokens=True)
        n_words = np.array([len(row) for row in rows], dtype=np.int64)
        word_of_text = ragged_arange(np.zeros_like(n_words), n_words)
        word_ids = np.repeat(word_of_text, flat.lengths).astype(np.int32)
        return Encoding(flat.ids, flat.row_splits[splits(n_words)], flat.offsets, word_ids=word_ids)

    def _is_returned(self, column: str, is_asked: bool | None) -> bool:
        return column in self.model_input_names if is_asked is None else is_asked

    def _warn_if_too_long(self, rows: Encoding) -> None:
        longest = int(rows.lengths.max(initial=0))
        if longest > self.model_max_length:
            warnings.warn(
                f"a row has {longest} tokens and the model takes {self.model_max_length}: give truncation=True",
                stacklevel=3,
            )


def check_side(side: Any) -> Side:
    """'left' or 'right'. Raises `ValueError` for anything else."""
    if side not in ("left", "right"):
        raise ValueError(f"a side is 'left' or 'right', not {side!r}")
    return "left" if side == "left" else "right"
