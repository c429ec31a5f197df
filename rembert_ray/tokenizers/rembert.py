"""RemBERT's tokenizer: SentencePiece, as the slow `RemBertTokenizer` of transformers 4.x ran it.

This is what the published checkpoints were trained with. Only SentencePiece is here: the surface is `base`'s. It must
not normalize text on its own, but for `do_lower_case`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, ClassVar, Unpack

import numpy as np

from rembert_ray.storage.location import Location, Place, as_location
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.base import PretrainedTokenizer, TokenizerOptions
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.sentencepiece_encoder import SentencePieceEncoder
from rembert_ray.tokenizers.special_tokens import Token
from rembert_ray.tokenizers.template import Template


class RemBertTokenizer(PretrainedTokenizer):
    """SentencePiece with RemBERT's special tokens: `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.

    `vocab_file` is the path or fsspec URL of a SentencePiece model. Special tokens that it lacks get ids after its
    vocabulary, in the order of transformers 4.x (bos, eos, unk, sep, pad, cls, mask, additional). The defaults `<pad>`
    and `<unk>` are those of 5.x and of 4.x's fast class; 4.x's slow class said [PAD] and [UNK], which its saved folders
    name. A call returns `token_type_ids` unless told otherwise, as in 4.x (5.x does not). `do_lower_case` leaves
    tokens that are written in the text alone: added words must stand there as they were added. `remove_space` and
    `keep_accents` are only kept for the saved config: the slow tokenizer never used them. `n_threads` is
    SentencePiece's own threading within one call. The other options are `TokenizerOptions`.

    Raises `UnusableError` when the file is missing or is no SentencePiece model.
    """

    default_roles: ClassVar[Mapping[str, Token]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    config_keys = ("do_lower_case", "remove_space", "keep_accents")

    def __init__(
        self,
        vocab_file: Place,
        *,
        do_lower_case: bool = False,
        remove_space: bool = True,
        keep_accents: bool = True,
        n_threads: int = 1,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        file = as_location(vocab_file)
        self.vocab_file = str(file)
        self.do_lower_case = do_lower_case
        self.remove_space = remove_space
        self.keep_accents = keep_accents
        self._encoder = SentencePieceEncoder(tokenizer_files.read_model(file), self.vocab_file, n_threads)
        super().__init__(**options)

    @classmethod
    def _find_vocabulary(cls, folder: Location) -> dict[str, Any]:
        return {"vocab_file": folder.child(tokenizer_files.MODEL_FILE)}

    def save_vocabulary(self, save_directory: Place, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the SentencePiece model, its bytes unchanged, and return where it is. Raises `StorageError`."""
        name = f"{filename_prefix}-{tokenizer_files.MODEL_FILE}" if filename_prefix else tokenizer_files.MODEL_FILE
        return tokenizer_files.write_files(as_location(save_directory), {name: self._encoder.model})

    @property
    def vocab_size(self) -> int:
        """Number of pieces in the SentencePiece model, without added tokens."""
        return int(self._encoder.processor.get_piece_size())

    def _id_in_vocabulary(self, token: str) -> int | None:
        return self._encoder.id_of(token)

    def _token_in_vocabulary(self, token_id: int) -> str:
        return str(self._encoder.processor.id_to_piece(token_id))

    @property
    def template(self) -> Template:
        """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, type 1 from B on."""
        return Template((self.cls_token_id,), (self.sep_token_id,), (self.sep_token_id,), second_type_id=1)

    def _encode_texts(
        self, texts: Sequence[str], *, with_offsets: bool, with_words: bool, parse_special_tokens: bool
    ) -> Encoding:
        specials = self._specials if parse_special_tokens else None
        encoding = self._encoder.encode(texts, specials, with_offsets, self.do_lower_case)
        return self._with_words(encoding) if with_words else encoding

    def _with_words(self, encoding: Encoding) -> Encoding:
        """A word begins with a piece that begins with '▁'; a special token is a word of its own."""
        # An unknown piece has the id of a special token, but is a part of a word.
        special_ids = [token_id for token_id in self._specials.by_id if token_id != self.unk_token_id]
        is_special = np.isin(encoding.ids, special_ids)
        begins = is_special | self._encoder.begins_word(encoding.ids)
        begins[1:] |= is_special[:-1]
        row_starts = encoding.row_splits[:-1]
        begins[row_starts[encoding.lengths > 0]] = True
        words = np.cumsum(begins) - 1
        first_words = words[np.minimum(row_starts, max(len(words) - 1, 0))] if len(words) else row_starts
        return replace(encoding, word_ids=(words - np.repeat(first_words, encoding.lengths)).astype(np.int32))

    def tokenize(self, text: str) -> list[str]:
        """Pieces of one text without the template; what the model does not know stands as in the text."""
        return self._encoder.pieces(text, self._specials, self.do_lower_case)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of pieces, as SentencePiece joins them."""
        return str(self._encoder.processor.decode_pieces(tokens))

    def _decode_ids(self, ids: list[int], skip_special_tokens: bool) -> str:
        """As transformers 4.x: special tokens with a role stand directly behind the text before them, added words have
        a space on either side.

        Unlike there, special tokens are also shown where the model holds them as control symbols.
        """
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        spaced = self._spaced_ids()
        texts = []
        for is_spaced, run in groupby((i for i in ids if i not in skipped), key=spaced.__contains__):
            stretch = list(run)
            texts += self.convert_ids_to_tokens(stretch) if is_spaced else [self._decode_run(stretch)]
        return " ".join(text for text in texts if text)

    def _spaced_ids(self) -> set[int]:
        """Added words, and special tokens without a role that the model lacks."""
        added = self._specials.by_id
        roles = {self._specials.id_of(content) for content in self._roles.values()}
        return {i for i, token in added.items() if i not in roles and (i >= self.vocab_size or not token.is_special)}

    def _decode_run(self, ids: list[int]) -> str:
        """Text of pieces and of special tokens with a role."""
        text = ""
        # The unknown piece is SentencePiece's to show.
        named = {token_id for token_id in self._specials.by_id if token_id != self._encoder.processor.unk_id()}
        for is_named, run in groupby(ids, key=named.__contains__):
            stretch = list(run)
            if is_named:
                text += "".join(self.convert_ids_to_tokens(stretch))
                continue
            begins_word = bool(self._encoder.begins_word(np.array(stretch[:1]))[0])
            text += (" " if text and begins_word else "") + str(self._encoder.processor.decode(stretch))
        return text
