"""Single tokens and words: the token that stands for a word, and the text that a token stands for.

It asks any tokenizer by its public surface; it must not know a vocabulary's format.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rembert_ray.text.masks import Piece
from rembert_ray.tokenizers.base import PretrainedTokenizer

WORD_MARKS = ("▁", "Ġ")
"""What SentencePiece and byte-level BPE write for the blank before a word."""


def find_target(target: str, tokenizer: PretrainedTokenizer) -> tuple[int | None, str]:
    """The id of a target (None if it has no token) and a warning, or "".

    As in Hugging Face's pipeline: the token of exactly this name, else the first piece of the text.
    """
    token_id = tokenizer.convert_tokens_to_ids(target)
    if token_id != tokenizer.unk_token_id or target == tokenizer.unk_token:
        marked = [mark + target for mark in WORD_MARKS]
        other = next((t for t in marked if tokenizer.convert_tokens_to_ids(t) != tokenizer.unk_token_id), None)
        return token_id, "" if other is None else f"target {target!r} continues a word; {other!r} begins one"
    ids = tokenizer.encode_batch([target], add_special_tokens=False).ids.tolist()
    if not ids:
        return None, f"target {target!r} has no token and is left out"
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return ids[0], ""
    piece = tokenizer.convert_ids_to_tokens(ids[0])
    return ids[0], f"target {target!r} is no single token: its first piece {piece!r} is scored"


def describe_pieces(ids: NDArray[np.integer], tokenizer: PretrainedTokenizer) -> dict[int, Piece]:
    """Each id as text; an id that the model has and the tokenizer has not is "", as in Hugging Face."""
    pieces = {}
    for token_id in ids.tolist():
        if token_id >= len(tokenizer):
            pieces[token_id] = Piece("", begins_word=False)
            continue
        text = tokenizer.decode([token_id])
        begins_word = tokenizer.convert_ids_to_tokens(token_id).startswith("▁") or text.startswith(" ")
        pieces[token_id] = Piece(text, begins_word)
    return pieces
