"""Where masks are written in a text, and the text with a piece in place of one. It must not see ids or a tokenizer.

The rest of the text stays as it is, character by character. What is decided here is the blank between a piece and the
word before it: a tokenizer drops the white space before a mask, and the piece says whether it begins a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Mask(NamedTuple):
    """A mask in a text, in Unicode characters.

    left: where the white space before it begins that no token holds; `start` if there is none.
    start, end: the mask token as it is written.
    """

    left: int
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """A token of the vocabulary as text.

    text: without the mark of a word's beginning (what `decode` gives, so byte-level BPE keeps its blank).
    begins_word: whether it has that mark.
    """

    text: str
    begins_word: bool


def find_mask(text: str, before: int, start: int, end: int, mask_token: str) -> Mask:
    """The mask whose token covers characters [start, end) of a text; the token before it ends at `before`.

    A token that takes the white space on its left may cover it or not: both give the same. A normalizer may have made
    the token from other characters (full-width ones): then all that it covers is the mask.
    """
    written = text.find(mask_token, start, end)
    if written >= 0:
        start, end = written, written + len(mask_token)
    before = min(before, start)
    return Mask(before + len(text[before:start].rstrip()), start, end)


def fill_mask(text: str, mask: Mask, piece: Piece) -> str:
    """The text with a piece in place of the mask.

    A piece that begins a word keeps the white space that is written before the mask, and gets a blank where there is
    none. A piece that continues a word follows that word directly: the model did not see the white space either.
    """
    after = text[mask.end :]
    if not piece.begins_word:
        return text[: mask.left] + piece.text + after
    before = text[: mask.start]
    blank = " " if before and not before[-1].isspace() else ""
    return before + blank + piece.text.removeprefix(" ") + after
