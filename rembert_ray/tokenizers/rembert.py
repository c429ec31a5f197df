"""RemBERT's tokenizer: SentencePiece, as the slow `RemBertTokenizer` of transformers 4.x ran it.

This is what the published checkpoints were trained with. It gives ragged batches (`encode_batch`), with
character offsets if asked; `__call__` is the Hugging Face form of the same. It must not import torch, but for
`return_tensors="pt"`, and it never truncates unless told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rembert_ray.storage.location import Location
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.padding import to_columns, to_padded, truncate_longest_first
from rembert_ray.tokenizers.sentencepiece_encoder import SentencePieceEncoder
from rembert_ray.tokenizers.special_tokens import ROLES, SpecialToken, SpecialTokens, as_special
from rembert_ray.tokenizers.template import apply_template, keep_head

Token = str | SpecialToken


class RemBertTokenizer:
    """SentencePiece with RemBERT's special tokens: `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.

    `vocab_file` is the path or fsspec URL of a SentencePiece model. Special tokens that it lacks get ids
    after its vocabulary, in the order of transformers 4.x (bos, eos, unk, sep, pad, cls, mask, additional).
    `added_tokens` come with the ids of a saved tokenizer and go first. A `mask_token` given as a string takes
    the white space on its left. `remove_space` and `keep_accents` are only kept for the saved config: the
    slow tokenizer never used them. `n_threads` is SentencePiece's own threading within one call.

    Raises `UnusableError` when the file is missing or is no SentencePiece model.
    """

    def __init__(
        self,
        vocab_file: str | Path | Location,
        *,
        cls_token: Token = "[CLS]",
        sep_token: Token = "[SEP]",
        pad_token: Token = "<pad>",
        unk_token: Token = "<unk>",
        mask_token: Token = "[MASK]",
        bos_token: Token = "[CLS]",
        eos_token: Token = "[SEP]",
        additional_special_tokens: Iterable[Token] = (),
        added_tokens: Iterable[SpecialToken] = (),
        do_lower_case: bool = False,
        remove_space: bool = True,
        keep_accents: bool = True,
        model_max_length: int | None = None,
        n_threads: int = 1,
    ) -> None:
        self.vocab_file = str(tokenizer_files.as_location(vocab_file))
        self.do_lower_case = do_lower_case
        self.remove_space = remove_space
        self.keep_accents = keep_accents
        self.model_max_length = model_max_length
        model = tokenizer_files.read_model(tokenizer_files.as_location(vocab_file))
        self._encoder = SentencePieceEncoder(model, self.vocab_file, n_threads)

        mask = SpecialToken(mask_token, lstrip=True) if isinstance(mask_token, str) else mask_token
        roles = [bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask]
        additional = [as_special(token) for token in additional_special_tokens]
        named = [as_special(token) for token in roles]
        self._specials = SpecialTokens([*added_tokens, *named, *additional], self._encoder.id_of, self.vocab_size)
        self.additional_special_tokens = [token.content for token in additional]
        contents = [token.content for token in named]
        self.all_special_tokens = list(dict.fromkeys([*contents, *self.additional_special_tokens]))
        self.all_special_ids = [self._specials.id_of(content) for content in self.all_special_tokens]
        self.bos_token, self.eos_token, self.unk_token, self.sep_token = contents[:4]
        self.pad_token, self.cls_token, self.mask_token = contents[4:]
        ids = [self._specials.id_of(content) for content in contents]
        self.bos_token_id, self.eos_token_id, self.unk_token_id, self.sep_token_id = ids[:4]
        self.pad_token_id, self.cls_token_id, self.mask_token_id = ids[4:]

    @classmethod
    def from_pretrained(cls, location: str | Path | Location, **options: Any) -> RemBertTokenizer:
        """The tokenizer saved in a folder or at any fsspec URL of one; `options` override what is saved.

        The folder holds `sentencepiece.model` and, if it likes, `tokenizer_config.json` and
        `special_tokens_map.json`. Raises `UnusableError` (missing or damaged file) or `StorageError`.
        """
        folder = tokenizer_files.as_location(location)
        return cls(folder.child(tokenizer_files.MODEL_FILE), **{**tokenizer_files.read_options(folder), **options})

    def save_pretrained(self, folder: str | Path | Location) -> None:
        """Write a folder that this class and transformers load; the model's bytes are written unchanged.

        `folder` may be any fsspec URL. Raises `StorageError` when it cannot be written.
        """
        listed = sorted(self._specials.by_id.items())
        config: dict[str, Any] = {
            "tokenizer_class": "RemBertTokenizer",
            "do_lower_case": self.do_lower_case,
            "remove_space": self.remove_space,
            "keep_accents": self.keep_accents,
            "added_tokens_decoder": {str(token_id): token.to_json() for token_id, token in listed},
            "additional_special_tokens": self.additional_special_tokens,
        }
        config.update({role: getattr(self, role) for role in ROLES})
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        tokenizer_files.write_folder(tokenizer_files.as_location(folder), self._encoder.model, config)

    @property
    def vocab_size(self) -> int:
        """Number of pieces in the SentencePiece model, without added tokens."""
        return int(self._encoder.processor.get_piece_size())

    def __len__(self) -> int:
        return max(self.vocab_size, max(self._specials.by_id) + 1)

    def num_special_tokens(self, pair: bool = False) -> int:
        """Tokens that the template adds to a row of one text, or of two."""
        return 3 if pair else 2

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
        that is theirs); False takes them as plain text. `with_offsets` costs about twice the time.

        Raises `ValueError` for a text with a lone surrogate, naming its index, and for unequal numbers of
        texts and pairs; `TypeError` for a text that is no `str`.
        """
        first, second = self._encode_sides(texts, pairs, with_offsets, parse_special_tokens)
        return self._apply_template(first, second, add_special_tokens)

    def _encode_sides(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        with_offsets: bool,
        parse_special_tokens: bool = True,
    ) -> tuple[Encoding, Encoding | None]:
        if isinstance(texts, str) or isinstance(pairs, str):
            raise TypeError("encode_batch takes a sequence of texts, not one str")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs: give one second text for each first")
        specials = self._specials if parse_special_tokens else None
        first = self._encoder.encode(texts, specials, with_offsets, self.do_lower_case)
        if pairs is None:
            return first, None
        return first, self._encoder.encode(pairs, specials, with_offsets, self.do_lower_case)

    def _apply_template(self, first: Encoding, second: Encoding | None, add_special_tokens: bool) -> Encoding:
        cls_id = self.cls_token_id if add_special_tokens else None
        sep_id = self.sep_token_id if add_special_tokens else None
        return apply_template(first, second, cls_id, sep_id)

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        add_special_tokens: bool = True,
        padding: bool | Literal["longest", "max_length", "do_not_pad"] = False,
        truncation: bool | Literal["longest_first", "do_not_truncate"] = False,
        max_length: int | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
        return_token_type_ids: bool | None = None,
        return_offsets_mapping: bool = False,
    ) -> dict[str, Any]:
        """Hugging Face's call: `input_ids`, `token_type_ids`, `attention_mask` and, if asked,
        `offset_mapping`.

        One text gives flat lists, several give lists of rows; `return_tensors` gives arrays [n, width] (one
        text: [1, width]). `return_token_type_ids` None means True, as the slow tokenizer of transformers 4.x
        had it (5.x says False). `max_length` None is the saved `model_max_length`.

        Raises `ValueError` for rows of unequal length in a tensor and for a length that is missing or too
        small.
        """
        is_single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else text
        pairs = [text_pair] if isinstance(text_pair, str) else text_pair
        first, second = self._encode_sides(texts, pairs, return_offsets_mapping)
        limit = self.model_max_length if max_length is None else max_length
        if truncation in (True, "longest_first"):
            first, second = self._truncate(first, second, limit, add_special_tokens)
        encoding = self._apply_template(first, second, add_special_tokens)
        with_type_ids = return_token_type_ids is not False
        if padding in (False, "do_not_pad") and return_tensors is None:
            columns = to_columns(encoding, with_type_ids, return_offsets_mapping)
            return {name: rows[0] for name, rows in columns.items()} if is_single else columns
        width = _required_width(encoding, padding, limit)
        columns = to_padded(encoding, width, self.pad_token_id, with_type_ids, return_offsets_mapping)
        return _as_tensors(columns, return_tensors, is_single)

    def _truncate(
        self, first: Encoding, second: Encoding | None, limit: int | None, add_special_tokens: bool
    ) -> tuple[Encoding, Encoding | None]:
        n_special = self.num_special_tokens(second is not None) if add_special_tokens else 0
        if limit is None or limit < n_special:
            raise ValueError(f"truncation needs max_length of at least {n_special}, got {limit}")
        second_lengths = first.lengths * 0 if second is None else second.lengths
        kept = truncate_longest_first(first.lengths, second_lengths, limit - n_special)
        return keep_head(first, kept[0]), None if second is None else keep_head(second, kept[1])

    def tokenize(self, text: str) -> list[str]:
        """Pieces of one text without the template; what the model does not know stands as in the text."""
        return self._encoder.pieces(text, self._specials, self.do_lower_case)

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """The piece or special token of each id. Raises `IndexError` for an id that there is not."""
        by_id = self._specials.by_id
        pieces = self._encoder.processor
        return [by_id[i].content if i in by_id else str(pieces.id_to_piece(i)) for i in map(int, ids)]

    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """The id of each piece or special token; SentencePiece's unknown id for any other string."""
        by_content = self._specials.by_content
        pieces = self._encoder.processor
        return [
            self._specials.id_of(token) if token in by_content else int(pieces.piece_to_id(token)) for token in tokens
        ]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Text of the ids. Special tokens are shown as they are written, with a space on either side, or
        skipped.

        Raises `IndexError` for an id that there is not.
        """
        stretches: list[str] = []
        plain: list[int] = []
        for token_id in map(int, ids):
            special = self._specials.by_id.get(token_id)
            if special is None:
                plain.append(token_id)
            elif not (skip_special_tokens and special.is_special):
                stretches += [str(self._encoder.processor.decode(plain)), special.content]
                plain = []
        stretches.append(str(self._encoder.processor.decode(plain)))
        return " ".join(stretch for stretch in stretches if stretch)


def _required_width(encoding: Encoding, padding: bool | str, limit: int | None) -> int | None:
    if padding == "max_length":
        if limit is None:
            raise ValueError('padding="max_length" needs max_length')
        return limit
    if padding in (False, "do_not_pad") and len(set(encoding.lengths.tolist())) > 1:
        raise ValueError("rows have unequal lengths and cannot be one tensor: give padding=True")
    return None


def _as_tensors(columns: dict[str, Any], kind: str | None, is_single: bool) -> dict[str, Any]:
    if kind == "np":
        return columns
    if kind == "pt":
        import torch

        return {name: torch.from_numpy(column) for name, column in columns.items()}
    if kind is not None:
        raise ValueError(f"return_tensors is {kind!r}: give 'np', 'pt' or None")
    return {name: (column[0] if is_single else column).tolist() for name, column in columns.items()}
