"""What every tokenizer here can do: Hugging Face's surface over the few primitives that a subclass gives.

Three layers, each a file: tokens and ids (`vocabulary`), text to ids (`calling`), and here construction, folders, and
ids back to text. It must not know a vocabulary's format.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, TypedDict, Unpack

from rembert_ray.storage.location import Location, Place, as_location
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.calling import CallableTokenizer, check_side
from rembert_ray.tokenizers.limits import UNLIMITED
from rembert_ray.tokenizers.special_tokens import ROLES, SpecialToken, Token
from rembert_ray.tokenizers.truncation import Side

_ENGLISH_SPACING = {
    **{f" {mark}": mark for mark in ".?!,"},
    " ' ": "'",
    **{f" {ending}": ending for ending in ("n't", "'m", "'s", "'ve", "'re")},
}


class TokenizerOptions(TypedDict, total=False):
    """Constructor arguments that all tokenizers take; the defaults of the roles are the class's `default_roles`.

    `added_tokens` come with the ids of a saved tokenizer and go first. `model_max_length` None is no limit.
    """

    bos_token: Token
    eos_token: Token
    unk_token: Token
    sep_token: Token
    pad_token: Token
    cls_token: Token
    mask_token: Token
    additional_special_tokens: Iterable[Token]
    added_tokens: Iterable[SpecialToken]
    model_max_length: int | None
    padding_side: Side
    truncation_side: Side
    clean_up_tokenization_spaces: bool


class PretrainedTokenizer(CallableTokenizer):
    """Text to ids and back, as transformers' tokenizers do it.

    A subclass's constructor loads its vocabulary, then calls this one. Raises `TypeError` for an unknown option and
    `ValueError` for a side that is neither 'left' nor 'right'.
    """

    config_keys: ClassVar[tuple[str, ...]] = ()
    """Constructor options of the class's own: attributes of the same names, saved and read back."""
    offsets_hold_blanks: ClassVar[bool] = False
    """Whether the characters of a token may begin with the blank before its word."""
    is_fast = True
    """What scripts ask by this is whether `word_ids`, offsets and overflowing rows are there. They are."""

    def __init__(self, **options: Unpack[TokenizerOptions]) -> None:
        unknown = sorted(set(options) - set(TokenizerOptions.__annotations__))
        if unknown:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(unknown)}")
        given: dict[str, Any] = {role: token for role, token in options.items() if role in ROLES}
        super().__init__(
            {**self.default_roles, **given},
            options.get("additional_special_tokens", ()),
            options.get("added_tokens", ()),
        )
        self.model_max_length = options.get("model_max_length") or UNLIMITED
        self.padding_side = check_side(options.get("padding_side", "right"))
        self.truncation_side = check_side(options.get("truncation_side", "right"))
        self.clean_up_tokenization_spaces = options.get("clean_up_tokenization_spaces", False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, {self.special_tokens_map})"

    # -- what a subclass gives --------------------------------------------------------------------------------

    @abstractmethod
    def _decode_ids(self, ids: list[int], skip_special_tokens: bool) -> str:
        """Text of the ids. Raises `IndexError` for an id that there is not."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """The tokens of one text without the template."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens."""

    @classmethod
    @abstractmethod
    def _find_vocabulary(cls, folder: Location) -> dict[str, Any]:
        """Constructor arguments that name the vocabulary's files in a folder; they override what is saved."""

    @abstractmethod
    def save_vocabulary(self, save_directory: Place, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary's files and return where they are. Raises `StorageError`."""

    # -- folders ----------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, location: Place, **options: Any) -> Self:
        """The tokenizer saved in a folder or at any fsspec URL of one; `options` override what is saved.

        Raises `UnusableError` (missing or damaged file) or `StorageError`.
        """
        folder = as_location(location)
        saved = tokenizer_files.read_options(folder, cls.config_keys)
        return cls(**{**saved, **cls._find_vocabulary(folder), **options})

    def save_pretrained(self, save_directory: Place) -> tuple[str, ...]:
        """Write a folder that this class and transformers load, and return its files. Raises `StorageError`."""
        folder = as_location(save_directory)
        keys = [*self.config_keys, *tokenizer_files.COMMON_KEYS]
        config: dict[str, Any] = {key: getattr(self, key) for key in keys}
        config |= {role: getattr(self, role) for role in ROLES}
        config["tokenizer_class"] = type(self).__name__
        config["additional_special_tokens"] = self.additional_special_tokens
        config["added_tokens_decoder"] = {
            str(token_id): token.to_json() for token_id, token in self.added_tokens_decoder.items()
        }
        if self.model_max_length == UNLIMITED:
            del config["model_max_length"]
        return self.save_vocabulary(folder) + tokenizer_files.write_config(folder, config)

    # -- the template on ids ----------------------------------------------------------------------------------

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Tokens that the template adds to a row of one text, or of two."""
        return self.template.size(has_pair=pair)

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """A row of ids with the template's tokens around one text, or two."""
        return self.template.join(token_ids_0, token_ids_1)

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """The type ids of the row that `build_inputs_with_special_tokens` makes."""
        return self.template.type_ids(len(token_ids_0), None if token_ids_1 is None else len(token_ids_1))

    def get_special_tokens_mask(
        self,
        token_ids_0: Iterable[int],
        token_ids_1: Iterable[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for special tokens and 0 for others, in the row that `build_inputs_with_special_tokens` makes.

        `already_has_special_tokens`: `token_ids_0` is such a row; every special token in it counts (as in
        transformers 5.x; RemBERT's slow tokenizer counted [CLS] and [SEP] only, so that padding and [MASK] could
        be masked again). Raises `ValueError` for a second text beside a whole row.
        """
        first = [int(token_id) for token_id in token_ids_0]
        if not already_has_special_tokens:
            return self.template.is_added(len(first), None if token_ids_1 is None else len(list(token_ids_1)))
        if token_ids_1 is not None:
            raise ValueError("a row that has its special tokens already holds both texts: give it alone")
        special = set(self.all_special_ids)
        return [int(token_id in special) for token_id in first]

    # -- decoding ---------------------------------------------------------------------------------------------

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """Text of a row of ids (a list, array or tensor), or of one id.

        `clean_up_tokenization_spaces` takes away the space before English punctuation and endings; None is the
        tokenizer's own setting. Raises `IndexError` for an id that there is not.
        """
        listed = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [int(token_id) for token_id in listed] if isinstance(listed, Iterable) else [int(listed)]
        text = self._decode_ids(ids, skip_special_tokens)
        asked = clean_up_tokenization_spaces
        return clean_up_tokenization(text) if (self.clean_up_tokenization_spaces if asked is None else asked) else text

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """Text of each row of ids; see `decode`."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in sequences]


def clean_up_tokenization(text: str) -> str:
    """Text without the space that tokenizers leave before English punctuation and endings (transformers' list)."""
    for spaced, joined in _ENGLISH_SPACING.items():
        text = text.replace(spaced, joined)
    return text
