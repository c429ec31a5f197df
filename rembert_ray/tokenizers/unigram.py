"""A SentencePiece Unigram model as a tokenizer of the `tokenizers` library, for `RemBertTokenizerFast`.

The result is what the `RemBertConverter` of transformers 4.x makes, without the template. Pieces and scores come
from the `sentencepiece` library; the character map, which it does not show, is read from the file itself. The
module that SentencePiece generates for protobuf is not used: it registers a file name that transformers
registers too, and the second one fails. It must not know special tokens, nor which folder a model came from.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.tokenizers.backend import state_of

_UNIGRAM = 1
# Field numbers of sentencepiece_model.proto.
_TRAINER_SPEC, _NORMALIZER_SPEC = 2, 3
_MODEL_TYPE = 3
_PRECOMPILED_CHARSMAP, _ADD_DUMMY_PREFIX = 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class NormalizerFlags:
    """What happens to a text before the model's own character map.

    - `do_lower_case`: lower case.
    - `keep_accents` False: letters lose their combining marks.
    - `remove_space`: a run of blanks becomes one (of blanks only: tabs and line ends become blanks later).
    """

    do_lower_case: bool = False
    keep_accents: bool = True
    remove_space: bool = True


def from_sentencepiece(model: bytes, name: str) -> tokenizers.Tokenizer:
    """The tokenizer of a SentencePiece model's bytes, `name` is what error messages call it.

    Raises `UnusableError` when `model` is no SentencePiece model or not of the Unigram kind.
    """
    try:
        processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        trainer = dict(_fields(_last(model, _TRAINER_SPEC)))
        normalizer = dict(_fields(_last(model, _NORMALIZER_SPEC)))
        ids = list(range(processor.get_piece_size()))
        if not ids:
            raise ValueError("it has no pieces")
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnusableError(Fault(name, f"is not a SentencePiece model: {error}", "copy the file again")) from error
    if trainer.get(_MODEL_TYPE, _UNIGRAM) != _UNIGRAM:
        what = "is a SentencePiece model of another kind than Unigram"
        raise UnusableError(Fault(name, what, "RemBERT's models are Unigram: take RemBERT's sentencepiece.model"))
    vocabulary = list(zip(processor.id_to_piece(ids), processor.get_score(ids), strict=True))
    has_bytes = any(processor.is_byte(ids))
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=processor.unk_id(), byte_fallback=has_bytes))
    tokenizer.normalizer = make_normalizer(bytes(normalizer.get(_PRECOMPILED_CHARSMAP, b"")), NormalizerFlags())
    scheme = "always" if normalizer.get(_ADD_DUMMY_PREFIX, 1) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    joins = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), joins]) if has_bytes else joins
    return tokenizer


def make_normalizer(charsmap: bytes, flags: NormalizerFlags) -> normalizers.Normalizer:
    """The normalizer of RemBERT's fast tokenizer; `charsmap` is the model's character map, empty for none.

    Source: `RemBertConverter.normalizer` of transformers 4.x, which has the step of `remove_space` always.
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if flags.remove_space:
        steps.append(normalizers.Replace(tokenizers.Regex(" {2,}"), " "))
    if not flags.keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if flags.do_lower_case:
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence(steps)


def read_normalizer(tokenizer: tokenizers.Tokenizer) -> tuple[bytes, NormalizerFlags]:
    """The character map (empty for none) and the flags that a tokenizer's normalizer stands for."""
    steps = _steps_of(tokenizer.normalizer)
    types = {step["type"] for step in steps}
    charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), "")
    flags = NormalizerFlags(
        do_lower_case="Lowercase" in types,
        keep_accents="StripAccents" not in types,
        remove_space=any(step.get("pattern") == {"Regex": " {2,}"} for step in steps),
    )
    return base64.b64decode(charsmap), flags


def _steps_of(normalizer: normalizers.Normalizer | None) -> list[dict[str, Any]]:
    state = state_of(normalizer)
    return list(state.get("normalizers", [state] if state else []))


def _last(message: bytes, number: int) -> bytes:
    """The last sub-message with this field number, as protobuf readers take it; empty when there is none."""
    found = b""
    for field, value in _fields(message):
        if field == number and isinstance(value, bytes):
            found = value
    return found


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protobuf message; numbers are ints, all else is bytes.

    Raises `ValueError` or `IndexError` for what is no message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"protobuf wire type {kind} at byte {position}")
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
