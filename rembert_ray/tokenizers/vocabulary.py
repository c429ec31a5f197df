"""Tokens and ids of a tokenizer: the roles of special tokens, added tokens, and conversion both ways.

It knows no text: finding tokens in text is the subclass's. Names and results are transformers'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, overload

from rembert_ray.tokenizers.special_tokens import ROLES, SpecialToken, SpecialTokens, Token, as_special

ADDITIONAL = ("additional_special_tokens", "extra_special_tokens")
"""What transformers 4.x and 5.x call the special tokens that have no role."""


class _Role:
    """A special token by its role, as text. Setting it takes any token that the tokenizer has."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name

    def __get__(self, tokenizer: TokenVocabulary, owner: type) -> str:
        return tokenizer._roles[self.role]

    def __set__(self, tokenizer: TokenVocabulary, token: Token) -> None:
        tokenizer._set_role(self.role, as_special(token).content)


class _RoleId:
    """The id of a special token by its role."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    def __get__(self, tokenizer: TokenVocabulary, owner: type) -> int:
        return tokenizer._specials.id_of(tokenizer._roles[self.role])

    def __set__(self, tokenizer: TokenVocabulary, token_id: int) -> None:
        tokenizer._set_role(self.role, tokenizer.convert_ids_to_tokens(token_id))


class TokenVocabulary(ABC):
    """The token and id side of `PretrainedTokenizer`.

    Added and special tokens are kept in one `SpecialTokens` for all tokenizers; a subclass with an engine of its own
    hears of them by `_learn_added_tokens`.
    """

    default_roles: ClassVar[Mapping[str, Token]]
    """The special token of each of `ROLES`."""

    bos_token, eos_token, unk_token, sep_token = _Role(), _Role(), _Role(), _Role()
    pad_token, cls_token, mask_token = _Role(), _Role(), _Role()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = _RoleId(), _RoleId(), _RoleId(), _RoleId()
    pad_token_id, cls_token_id, mask_token_id = _RoleId(), _RoleId(), _RoleId()

    def __init__(
        self, roles: Mapping[str, Token], additional: Iterable[Token], added_tokens: Iterable[SpecialToken]
    ) -> None:
        tokens = {role: as_role_token(role, roles[role]) for role in ROLES}
        listed = list(added_tokens)
        others = [as_special(token) for token in additional]
        self._roles = {role: token.content for role, token in tokens.items()}
        self._specials = SpecialTokens([], self._id_in_vocabulary, self.vocab_size)
        self._add([*listed, *tokens.values(), *others])
        named = {token.content for token in tokens.values()}
        contents = [token.content for token in (*others, *listed) if token.is_special]
        self._additional = [content for content in dict.fromkeys(contents) if content not in named]

    # -- what a subclass gives --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary, ids 0 to `vocab_size - 1`, without added tokens."""

    @abstractmethod
    def _id_in_vocabulary(self, token: str) -> int | None:
        """The id of a token of the vocabulary, None when it has no such token. Added tokens are not asked for."""

    @abstractmethod
    def _token_in_vocabulary(self, token_id: int) -> str:
        """The token of an id. Raises `IndexError` for an id that the vocabulary does not have."""

    def _learn_added_tokens(self, tokens: Sequence[SpecialToken]) -> None:  # noqa: B027 (most have nothing to do)
        """Told of new added tokens, which have ids, in the order of their ids."""

    # -- special tokens ---------------------------------------------------------------------------------------

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """Special tokens by role, and `additional_special_tokens` if there are any."""
        additional: dict[str, str | list[str]] = {ADDITIONAL[0]: list(self._additional)} if self._additional else {}
        return {**self._roles, **additional}

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens that have no role."""
        return list(self._additional)

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, roles first."""
        return list(dict.fromkeys([*self._roles.values(), *self._additional]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self._specials.id_of(token) for token in self.all_special_tokens]

    def _set_role(self, role: str, content: str) -> None:
        if content not in self._specials.by_content:
            if self._id_in_vocabulary(content) is None:
                fix = f"add_special_tokens({{{role!r}: {content!r}}})"
                raise ValueError(f"{content!r} is no token of this tokenizer; {fix} adds it")
            self._add([SpecialToken(content)])
        self._roles = {**self._roles, role: content}

    # -- added tokens -----------------------------------------------------------------------------------------

    def add_tokens(self, new_tokens: Token | Iterable[Token], special_tokens: bool = False) -> int:
        """Add tokens that are matched in text as they are written; returns how many got a new id.

        New ids follow the largest there is: resize the model's embeddings to `len(tokenizer)`. `special_tokens`
        True makes them special: `decode(skip_special_tokens=True)` leaves them out. A token that is there already
        keeps its id and flags.
        """
        # A string is an ordinary word here; a token object says itself what it is.
        tokens = [
            replace(as_special(token), is_special=False) if isinstance(token, str) else as_special(token)
            for token in as_list(new_tokens)
        ]
        if special_tokens:
            tokens = [replace(token, is_special=True) for token in tokens]
        n_new = self._add(tokens)
        known = set(self.all_special_tokens)
        self._additional += [token.content for token in tokens if token.is_special and token.content not in known]
        return n_new

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Token | Sequence[Token]],
        replace_additional_special_tokens: bool = True,
    ) -> int:
        """Give roles new tokens, and set the special tokens without a role; returns how many got a new id.

        Keys are roles (`cls_token`, ...) and `additional_special_tokens` (or its name in 5.x,
        `extra_special_tokens`). Raises `ValueError` for any other key.
        """
        n_new = 0
        for key, value in special_tokens_dict.items():
            if key in ROLES:
                token = as_role_token(key, value)
                n_new += self._add([token])
                self._roles = {**self._roles, key: token.content}
            elif key in ADDITIONAL:
                tokens = [replace(as_special(token), is_special=True) for token in as_list(value)]
                n_new += self._add(tokens)
                kept = [] if replace_additional_special_tokens else self._additional
                self._additional = list(dict.fromkeys([*kept, *(token.content for token in tokens)]))
            else:
                raise ValueError(f"{key!r} is no special token: give one of {', '.join((*ROLES, ADDITIONAL[0]))}")
        return n_new

    def _add(self, tokens: Iterable[SpecialToken]) -> int:
        known = self._specials.by_content
        extended = SpecialTokens([*known.values(), *tokens], self._id_in_vocabulary, self.vocab_size)
        new = [token for content, token in extended.by_content.items() if content not in known]
        self._specials = extended
        self._learn_added_tokens(sorted(new, key=lambda token: extended.id_of(token.content)))
        return sum(self._id_in_vocabulary(token.content) is None for token in new)

    @property
    def added_tokens_decoder(self) -> dict[int, SpecialToken]:
        """Added and special tokens by id, also those that the vocabulary has."""
        return dict(sorted(self._specials.by_id.items()))

    def get_added_vocab(self) -> dict[str, int]:
        """Ids of the added and special tokens, also of those that the vocabulary has."""
        return {token.content: token_id for token_id, token in self.added_tokens_decoder.items()}

    # -- conversion -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Rows that a model's embeddings need: the largest id and one."""
        return max(self.vocab_size, max(self._specials.by_id, default=-1) + 1)

    def get_vocab(self) -> dict[str, int]:
        """Ids of all tokens, added ones included."""
        plain = {self._token_in_vocabulary(token_id): token_id for token_id in range(self.vocab_size)}
        return {**plain, **self.get_added_vocab()}

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...

    @overload
    def convert_ids_to_tokens(self, ids: Iterable[int], skip_special_tokens: bool = False) -> list[str]: ...

    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> str | list[str]:
        """The token of each id, or of one. Raises `IndexError` for an id that there is not."""
        if not isinstance(ids, Iterable):
            return self._token_of(int(ids))
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token_of(token_id) for token_id in map(int, ids) if token_id not in skipped]

    def _token_of(self, token_id: int) -> str:
        added = self._specials.by_id.get(token_id)
        return self._token_in_vocabulary(token_id) if added is None else added.content

    # A str is an iterable of str too, and the first form wins.
    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...  # type: ignore[overload-overlap]

    @overload
    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """The id of each token, or of one; the unknown token's for any other string."""
        if isinstance(tokens, str):
            return self._id_of(tokens)
        return list(map(self._id_of, tokens))

    def _id_of(self, token: str) -> int:
        if token in self._specials.by_content:
            return self._specials.id_of(token)
        token_id = self._id_in_vocabulary(token)
        return self.unk_token_id if token_id is None else token_id


def as_role_token(role: str, token: Any) -> SpecialToken:
    """The token of a role. A mask given as a string takes the white space on its left, in every architecture here."""
    special = replace(as_special(token), is_special=True)
    return replace(special, lstrip=True) if role == "mask_token" and isinstance(token, str) else special


def as_list(tokens: Token | Iterable[Token]) -> list[Token]:
    """One token or several, as a list."""
    if isinstance(tokens, str | SpecialToken) or not isinstance(tokens, Iterable):
        return [tokens]
    return list(tokens)
