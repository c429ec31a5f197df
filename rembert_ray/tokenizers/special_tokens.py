"""Special tokens: their ids, and finding them in text, as the slow tokenizers of transformers 4.x did.

Source: transformers 4.x, `PreTrainedTokenizer._add_tokens` (ids of tokens that the vocabulary lacks) and
`PreTrainedTokenizer.tokenize` (splitting text). It must not know SentencePiece: it asks for ids by a
function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The order in which transformers 4.x adds the tokens that a vocabulary lacks."""


@dataclass(frozen=True)
class SpecialToken:
    """A token that is matched in the text as it is written, before the vocabulary is asked.

    `lstrip` and `rstrip`: the white space on that side belongs to the token. `id`: fixed by a saved
    tokenizer, else None (the vocabulary's id, or the next free one). `is_special` False: an ordinary added
    word, which `decode(skip_special_tokens=True)` keeps.
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    id: int | None = None
    is_special: bool = True

    def to_json(self) -> dict[str, str | bool]:
        """The token as an entry of transformers' `added_tokens_decoder`."""
        return {
            "content": self.content,
            "lstrip": self.lstrip,
            "normalized": False,
            "rstrip": self.rstrip,
            "single_word": False,
            "special": self.is_special,
        }


class TokenLike(Protocol):
    """What `AddedToken` of transformers and `tokenizers` has of ours."""

    @property
    def content(self) -> str:
        """The token as it is written."""

    @property
    def lstrip(self) -> bool:
        """Whether it takes the white space on its left."""

    @property
    def rstrip(self) -> bool:
        """Whether it takes the white space on its right."""


Token = str | SpecialToken | TokenLike
"""A token given by its text alone, with no flags, or with flags."""


def as_special(token: Token) -> SpecialToken:
    """A token in our form. Raises `TypeError` for what is none, `ValueError` for the flag `single_word`."""
    if isinstance(token, SpecialToken):
        return token
    if isinstance(token, str):
        return SpecialToken(token)
    if not hasattr(token, "content"):
        raise TypeError(f"a token is a str or a SpecialToken, not {type(token).__name__}")
    if getattr(token, "single_word", False):
        raise ValueError(f"{token.content!r}: single_word is not supported, leave it False")
    return SpecialToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, is_special=getattr(token, "special", False)
    )


class Part(NamedTuple):
    """A piece of a text, characters [start, end): plain text (`id` None) or one special token."""

    start: int
    end: int
    id: int | None = None


class SpecialTokens:
    """The special tokens of one tokenizer, with ids.

    `vocabulary_id(content)` gives the id of a token that the vocabulary has, else None; the others get ids
    from `vocab_size` on, in the order given. The first of two tokens with the same content wins.
    """

    def __init__(
        self, tokens: Iterable[SpecialToken], vocabulary_id: Callable[[str], int | None], vocab_size: int
    ) -> None:
        self.by_content: dict[str, SpecialToken] = {}
        next_id = vocab_size
        for token in tokens:
            if not token.content or token.content in self.by_content:
                continue
            token_id = vocabulary_id(token.content) if token.id is None else token.id
            if token_id is None:
                token_id = next_id
            next_id = max(next_id, token_id + 1)
            self.by_content[token.content] = replace(token, id=token_id)
        self.by_id: dict[int, SpecialToken] = {_id_of(token): token for token in self.by_content.values()}
        longest_first = sorted(self.by_content, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(content) for content in longest_first) or "(?!)")

    def id_of(self, content: str) -> int:
        """The id of a special token."""
        return _id_of(self.by_content[content])

    def occur_in(self, text: str) -> bool:
        """Whether any special token is written in `text`. Cheap: most texts have none."""
        return any(content in text for content in self.by_content)

    def split(self, text: str) -> list[Part]:
        """`text` cut at the special tokens that are written in it, leftmost and longest first.

        White space that a token takes on its left or right (`lstrip`, `rstrip`) is in no part, and neither
        are empty stretches of text.
        """
        parts: list[Part] = []
        start = 0
        for match in self._pattern.finditer(text):
            token = self.by_content[match.group()]
            end = match.start()
            if token.lstrip:
                end = start + len(text[start:end].rstrip())
            if end > start:
                parts.append(Part(start, end))
            parts.append(Part(match.start(), match.end(), token.id))
            start = match.end()
            if token.rstrip:
                start = len(text) - len(text[start:].lstrip())
        if start < len(text):
            parts.append(Part(start, len(text)))
        return parts


def _id_of(token: SpecialToken) -> int:
    assert token.id is not None, "tokens of a SpecialTokens have ids"
    return token.id
