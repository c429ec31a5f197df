"""Tokenizers that run on the `tokenizers` library: its engine behind the primitives of `PretrainedTokenizer`.

It gives texts to the library and flattens what comes back. It must not know a model's files or its template, and it
never lets the library add special tokens, truncate or pad: that is done on whole ragged batches by the base. The
library uses all cores unless `TOKENIZERS_PARALLELISM=false` is set.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, Unpack

import numpy as np
import tokenizers

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.ragged import splits
from rembert_ray.storage.location import Location, Place, as_location
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.base import PretrainedTokenizer, TokenizerOptions
from rembert_ray.tokenizers.encoding import Encoding, IntArray
from rembert_ray.tokenizers.special_tokens import SpecialToken
from rembert_ray.tokenizers.text_input import check_texts
from rembert_ray.tokenizers.truncation import share_evenly

TOKENIZER_FILE = "tokenizer.json"


def read_tokenizer(file: Location, model: str) -> tokenizers.Tokenizer:
    """The tokenizer of a `tokenizer.json`.

    Raises `UnusableError` when there is no such file, when it holds something else, or when its model is not a `model`
    ('BPE', 'Unigram').
    """
    content = tokenizer_files.read_if_exists(file)
    if content is None:
        raise UnusableError(Fault(str(file), "there is no such file", "save the tokenizer again"))
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # The library raises bare `Exception`.
        raise UnusableError(
            Fault(str(file), f"is not a {TOKENIZER_FILE}: {error}", "save the tokenizer again")
        ) from error
    found = type(tokenizer.model).__name__
    if found != model:
        what = f"holds a {found} model, not {model}"
        raise UnusableError(Fault(str(file), what, "load it with the class that saved it"))
    return tokenizer


def state_of(part: Any) -> dict[str, Any]:
    """The entry in `tokenizer.json` of a tokenizer's normalizer, pre-tokenizer or post-processor; empty for None."""
    return {} if part is None else dict(json.loads(part.__getstate__()))


class BackendTokenizer(PretrainedTokenizer):
    """A tokenizer over `backend_tokenizer`, a `tokenizers.Tokenizer`, which it changes and keeps.

    The added tokens that the library knows go before the `added_tokens` of the caller. Words that the library
    found in a text (`word_ids`) are those of its pre-tokenizer.
    """

    longest_first = staticmethod(share_evenly)
    offsets_hold_blanks = True

    def __init__(self, backend_tokenizer: tokenizers.Tokenizer, **options: Unpack[TokenizerOptions]) -> None:
        backend_tokenizer.no_padding()
        backend_tokenizer.no_truncation()
        self.backend_tokenizer = backend_tokenizer
        options["added_tokens"] = [*_added_tokens_of(backend_tokenizer), *options.get("added_tokens", ())]
        super().__init__(**options)
        self._fit_post_processor()

    @abstractmethod
    def _fit_post_processor(self) -> None:
        """Give the library the template with the present tokens. It is saved, and may trim offsets."""

    @abstractmethod
    def _vocabulary_files(self) -> dict[str, bytes]:
        """Name and content of the files that the slow form of the tokenizer needs."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary, without added ones."""
        return int(self.backend_tokenizer.get_vocab_size(with_added_tokens=False))

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text without the template; what the model does not know stands as in the text.

        Raises `ValueError` for a lone surrogate, `TypeError` for what is no `str`.
        """
        check_texts([text])
        self.backend_tokenizer.encode_special_tokens = False
        return list(self.backend_tokenizer.encode(text, add_special_tokens=False).tokens)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text that tokens stand for."""
        return str(self.backend_tokenizer.decoder.decode(list(tokens)))

    def _id_in_vocabulary(self, token: str) -> int | None:
        token_id: int | None = self.backend_tokenizer.model.token_to_id(token)
        return token_id

    def _token_in_vocabulary(self, token_id: int) -> str:
        token = self.backend_tokenizer.model.id_to_token(token_id)
        if token is None:
            raise IndexError(f"id {token_id} is not in the vocabulary of {self.vocab_size} tokens")
        return str(token)

    def _encode_texts(
        self, texts: Sequence[str], *, with_offsets: bool, with_words: bool, parse_special_tokens: bool
    ) -> Encoding:
        rows = self._run(list(texts), needs_alignment=with_offsets or with_words, parse=parse_special_tokens)
        row_splits = splits([len(row) for row in rows])
        total = int(row_splits[-1])
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), dtype=np.int32, count=total)
        offsets: IntArray | None = None
        word_ids: IntArray | None = None
        if with_offsets:
            bounds = chain.from_iterable(chain.from_iterable(row.offsets for row in rows))
            offsets = np.fromiter(bounds, dtype=np.int32, count=2 * total).reshape(-1, 2)
        if with_words:
            words = chain.from_iterable(row.word_ids for row in rows)
            word_ids = np.fromiter(words, dtype=np.int32, count=total)
        return Encoding(ids, row_splits, offsets=offsets, word_ids=word_ids)

    def _run(self, texts: list[str], *, needs_alignment: bool, parse: bool) -> list[tokenizers.Encoding]:
        # A setting of the library, not an argument: set it each time.
        self.backend_tokenizer.encode_special_tokens = not parse
        encode = self.backend_tokenizer.encode_batch if needs_alignment else self.backend_tokenizer.encode_batch_fast
        try:
            return list(encode(texts, add_special_tokens=False))
        except TypeError:
            # The library does not say which text is wrong, nor what is wrong with it.
            check_texts(texts)
            raise

    def _decode_ids(self, ids: list[int], skip_special_tokens: bool) -> str:
        if ids and not 0 <= min(ids) <= max(ids) < len(self):
            # The library would leave them out.
            raise IndexError(f"ids from {min(ids)} to {max(ids)}, but the tokenizer has {len(self)} tokens")
        return str(self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))

    def save_vocabulary(self, save_directory: Place, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write `tokenizer.json`, and the files of the slow tokenizer where they are known; returns where they are.

        `save_directory` may be any fsspec URL. Raises `StorageError` when it cannot be written.
        """
        self._fit_post_processor()
        files = {TOKENIZER_FILE: self.backend_tokenizer.to_str(pretty=True).encode(), **self._vocabulary_files()}
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        named = {prefix + name: content for name, content in files.items()}
        return tokenizer_files.write_files(as_location(save_directory), named)

    def _learn_added_tokens(self, tokens: Sequence[SpecialToken]) -> None:
        """Tell the library, which matches them in texts.

        Raises `ValueError` for an id that it cannot give: its ids go on where the vocabulary ends.
        """
        backend = self.backend_tokenizer
        known = {token.id: token for token in _added_tokens_of(backend)}
        for token in tokens:
            if known.get(token.id) == token:
                continue
            added = tokenizers.AddedToken(
                token.content, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=token.is_special
            )
            (backend.add_special_tokens if token.is_special else backend.add_tokens)([added])
            given = backend.token_to_id(token.content)
            if given != token.id:
                what = f"added token {token.content!r} has id {token.id}, but the next free one is {given}"
                raise ValueError(f"{what}: number added tokens without gaps, from the vocabulary's size on")


def _added_tokens_of(tokenizer: tokenizers.Tokenizer) -> list[SpecialToken]:
    listed: dict[int, Any] = tokenizer.get_added_tokens_decoder()
    return [
        SpecialToken(token.content, token.lstrip, token.rstrip, token_id, token.special)
        for token_id, token in sorted(listed.items())
    ]
