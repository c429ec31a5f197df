"""What `padding`, `truncation` and `max_length` of a call mean together, as transformers has it.

It decides and warns; it must not touch tokens.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

PaddingStrategy = Literal["longest", "max_length", "do_not_pad"]
TruncationStrategy = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
Padding = bool | PaddingStrategy
Truncation = bool | TruncationStrategy | None

UNLIMITED = int(1e30)
"""`model_max_length` of a tokenizer that was saved without one; transformers writes this number."""
_LARGEST_REAL_LENGTH = int(1e20)


@dataclass(frozen=True)
class Limits:
    """The settled strategies; `max_length` is there where one of them needs it."""

    padding: PaddingStrategy
    truncation: TruncationStrategy
    max_length: int | None
    pad_to_multiple_of: int | None

    @property
    def truncates(self) -> bool:
        """Whether texts may be shortened."""
        return self.truncation != "do_not_truncate"

    @property
    def pads(self) -> bool:
        """Whether rows may be lengthened."""
        return self.padding != "do_not_pad"

    def padded_width(self, longest: int) -> int:
        """Width to which rows are padded when the longest has `longest` tokens."""
        width = self.max_length if self.padding == "max_length" and self.max_length is not None else longest
        multiple = self.pad_to_multiple_of
        return width if multiple is None else -(-width // multiple) * multiple


def resolve_limits(
    padding: Padding,
    truncation: Truncation,
    max_length: int | None,
    model_max_length: int,
    pad_to_multiple_of: int | None = None,
) -> Limits:
    """The strategies of one call.

    As in transformers: `max_length` alone truncates (and warns); a strategy without any length to go by is
    switched off (and warns). Raises `ValueError` for an unknown strategy, and for a `max_length` that is no multiple
    of `pad_to_multiple_of` when rows are truncated and padded to it.
    """
    pads = _padding_strategy(padding)
    truncates = _truncation_strategy(truncation)
    if truncation is None and max_length is not None and pads == "do_not_pad":
        _warn("max_length was given without truncation: rows are truncated to it; say truncation=True or False")
        truncates = "longest_first"
    if pads == "longest" and max_length is not None and truncates == "do_not_truncate":
        _warn('max_length does nothing with padding=True and no truncation; padding="max_length" pads to it')
    length = max_length
    if length is None and model_max_length <= _LARGEST_REAL_LENGTH:
        length = model_max_length
    if length is None and truncates != "do_not_truncate":
        _warn("nothing is truncated: no max_length was given and the tokenizer has no model_max_length")
        truncates = "do_not_truncate"
    if length is None and pads == "max_length":
        _warn("nothing is padded: no max_length was given and the tokenizer has no model_max_length")
        pads = "do_not_pad"
    limits = Limits(pads, truncates, length, pad_to_multiple_of)
    if limits.truncates and limits.pads and length is not None and pad_to_multiple_of and length % pad_to_multiple_of:
        raise ValueError(f"max_length {length} is no multiple of pad_to_multiple_of {pad_to_multiple_of}")
    return limits


def _padding_strategy(padding: Padding) -> PaddingStrategy:
    if isinstance(padding, bool) or padding is None:
        return "longest" if padding else "do_not_pad"
    for strategy in get_args(PaddingStrategy):
        if strategy == padding:
            return strategy  # type: ignore[no-any-return]
    raise ValueError(f"padding is {padding!r}: give True, False or one of {', '.join(get_args(PaddingStrategy))}")


def _truncation_strategy(truncation: Truncation) -> TruncationStrategy:
    if isinstance(truncation, bool) or truncation is None:
        return "longest_first" if truncation else "do_not_truncate"
    for strategy in get_args(TruncationStrategy):
        if strategy == truncation:
            return strategy  # type: ignore[no-any-return]
    raise ValueError(
        f"truncation is {truncation!r}: give True, False or one of {', '.join(get_args(TruncationStrategy))}"
    )


def _warn(message: str) -> None:
    # Up through resolve_limits, __call__ and its caller's frame.
    warnings.warn(message, stacklevel=4)
