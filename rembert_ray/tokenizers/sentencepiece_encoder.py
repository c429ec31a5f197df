"""SentencePiece over batches of texts in which special tokens may be written; ids and character offsets.

Knows pieces and characters. It must not know the sequence template, nor which special token plays which role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tokenizers.aligned_offsets import AlignedOffsets
from rembert_ray.tokenizers.encoding import Encoding, IntArray
from rembert_ray.tokenizers.special_tokens import Part, SpecialTokens
from rembert_ray.tokenizers.text_input import check_texts


class SentencePieceEncoder:
    """A loaded SentencePiece model. Pickles as the model's bytes.

    `name` is what error messages call the model. `n_threads` is SentencePiece's own threading within one
    call. Raises `UnusableError` when `model` is no SentencePiece model.
    """

    def __init__(self, model: bytes, name: str, n_threads: int = 1) -> None:
        self.model = model
        self.name = name
        self.n_threads = n_threads
        self._load()

    def _load(self) -> None:
        try:
            self.processor: Any = sentencepiece.SentencePieceProcessor(model_proto=self.model)
            has_pieces = self.processor.get_piece_size() > 0
        except (RuntimeError, ValueError, OSError) as error:
            raise UnusableError(self._damaged(str(error))) from error
        if not has_pieces:
            raise UnusableError(self._damaged("it has no pieces"))
        self._begins_word: NDArray[np.bool_] | None = None
        self._offsets: AlignedOffsets | None = None

    def _damaged(self, reason: str) -> Fault:
        return Fault(self.name, f"is not a SentencePiece model: {reason}", "copy the file again")

    def __reduce__(self) -> tuple[type[SentencePieceEncoder], tuple[bytes, str, int]]:
        return type(self), (self.model, self.name, self.n_threads)

    def id_of(self, piece: str) -> int | None:
        """The id of a piece of the model, None when it has no such piece."""
        piece_id = int(self.processor.piece_to_id(piece))
        is_known = piece_id != self.processor.unk_id() or piece == self.processor.id_to_piece(piece_id)
        return piece_id if is_known else None

    def begins_word(self, ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which ids are pieces that begin with '▁'; False for ids that the model does not have."""
        if self._begins_word is None:
            pieces = self.processor.id_to_piece(list(range(self.processor.get_piece_size())))
            # One more for all ids that are not the model's.
            self._begins_word = np.array([*(piece.startswith("▁") for piece in pieces), False], dtype=np.bool_)
        begins: NDArray[np.bool_] = self._begins_word[np.minimum(ids, len(self._begins_word) - 1)]
        return begins

    def encode(
        self, texts: Sequence[str], specials: SpecialTokens | None, with_offsets: bool, lowers_case: bool
    ) -> Encoding:
        """Ids of each text, no template. `specials` None takes special tokens in the text as plain text.

        Raises `ValueError`, naming the text's index, for a text with a lone surrogate; `TypeError` for what
        is no `str`.
        """
        texts = list(texts)
        try:
            # One search through all texts: most batches have no special token anywhere.
            is_plain = specials is None or not specials.occur_in("\n".join(texts))
            if is_plain and not lowers_case:
                return self._encode_plain(texts, with_offsets)
            rows = [[Part(0, len(text))] for text in texts] if specials is None else map(specials.split, texts)
            return self._encode_parts(texts, list(rows), with_offsets, lowers_case)
        except TypeError:
            # SentencePiece does not say which text is wrong, nor what is wrong with it.
            check_texts(texts)
            raise

    def pieces(self, text: str, specials: SpecialTokens, lowers_case: bool) -> list[str]:
        """The pieces of one text, special tokens as they are written, unknown stretches as their own text.

        Raises as `encode` does.
        """
        check_texts([text])
        pieces: list[str] = []
        for part in specials.split(text):
            segment = text[part.start : part.end]
            if part.id is not None:
                pieces.append(segment)
                continue
            plain = _lower(segment) if lowers_case else segment
            pieces.extend(self.processor.encode(plain, return_type=str))
        return pieces

    def _encode_plain(self, texts: list[str], with_offsets: bool) -> Encoding:
        rows = self.processor.encode(texts, return_type="numpy", num_threads=self.n_threads)
        ids = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
        row_splits = splits([len(row) for row in rows])
        if not with_offsets:
            return Encoding(ids, row_splits)
        if self._offsets is None:
            self._offsets = AlignedOffsets(self.processor, self.model, self.n_threads)
        return Encoding(ids, row_splits, self._offsets.find(texts, ids, row_splits))

    def _encode_parts(
        self, texts: list[str], rows: list[list[Part]], with_offsets: bool, lowers_case: bool
    ) -> Encoding:
        """Encode the plain parts of all rows in one batch, then put the special tokens between them."""
        parts = [part for row in rows for part in row]
        segments = [
            text[part.start : part.end]
            for text, row in zip(texts, rows, strict=True)
            for part in row
            if part.id is None
        ]
        encode = self._encode_lowered if lowers_case else self._encode_plain
        encoded = encode(segments, with_offsets)

        special_ids = np.array([-1 if part.id is None else part.id for part in parts], dtype=np.int32)
        is_segment = special_ids < 0
        part_lengths = np.ones(len(parts), dtype=np.int64)
        part_lengths[is_segment] = encoded.lengths
        part_splits = splits(part_lengths)
        part_starts = part_splits[:-1]
        from_segments = ragged_arange(part_starts[is_segment], encoded.lengths)
        from_specials = part_starts[~is_segment]

        ids = np.empty(int(part_splits[-1]), dtype=np.int32)
        ids[from_segments] = encoded.ids
        ids[from_specials] = special_ids[~is_segment]
        row_splits = part_splits[splits([len(row) for row in rows])]
        if encoded.offsets is None:
            return Encoding(ids, row_splits)
        bounds = np.array([part[:2] for part in parts], dtype=np.int32).reshape(-1, 2)
        offsets = np.empty((len(ids), 2), dtype=np.int32)
        offsets[from_segments] = encoded.offsets + np.repeat(bounds[is_segment, :1], encoded.lengths, axis=0)
        offsets[from_specials] = bounds[~is_segment]
        return Encoding(ids, row_splits, offsets)

    def _encode_lowered(self, texts: list[str], with_offsets: bool) -> Encoding:
        """Encode the texts in lower case; offsets are in the texts as given."""
        lowered = [_lower(text) for text in texts]
        encoded = self._encode_plain(lowered, with_offsets)
        if encoded.offsets is None or all(map(_keeps_length, texts, lowered)):
            return encoded
        offsets = encoded.offsets.copy()
        for row, text in enumerate(texts):
            origin = np.repeat(np.arange(len(text)), [len(character.lower()) for character in text])
            part = slice(int(encoded.row_splits[row]), int(encoded.row_splits[row + 1]))
            offsets[part] = _map_back(encoded.offsets[part], origin)
        return replace(encoded, offsets=offsets)


def _lower(text: str) -> str:
    """Lower case, one character at a time as in transformers 4.x (no final sigma)."""
    return "".join(map(str.lower, text))


def _keeps_length(text: str, lowered: str) -> bool:
    return len(text) == len(lowered)


def _map_back(offsets: IntArray, origin: NDArray[np.int64]) -> IntArray:
    """Ranges in a changed text as ranges in the original; `origin` [m]: where each character came from."""
    if not len(origin):
        return offsets
    starts, ends = offsets[:, 0], offsets[:, 1]
    bounds = np.append(origin, origin[-1] + 1)
    mapped_ends = np.where(ends > starts, origin[np.maximum(ends, 1) - 1] + 1, bounds[starts])
    return np.stack([bounds[starts], mapped_ends], axis=1).astype(np.int32)
