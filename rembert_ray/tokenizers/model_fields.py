"""The fields of a SentencePiece model's file that the `sentencepiece` library does not show.

The module that SentencePiece generates for protobuf is not used: it registers a file name that transformers registers
too, and the second one fails. It must not interpret what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

# Field numbers of sentencepiece_model.proto.
_TRAINER_SPEC, _NORMALIZER_SPEC = 2, 3
_MODEL_TYPE = 3
_PRECOMPILED_CHARSMAP, _ADD_DUMMY_PREFIX = 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

UNIGRAM = 1
"""The model type that RemBERT's models have."""


def model_type(model: bytes) -> int:
    """What kind of model it is. Raises `ValueError` or `IndexError` for what is no model."""
    return int(dict(_fields(_last(model, _TRAINER_SPEC))).get(_MODEL_TYPE, UNIGRAM))


def character_map(model: bytes) -> bytes:
    """The normalizer's precompiled character map, empty for none. Raises as `model_type` does."""
    return bytes(dict(_fields(_last(model, _NORMALIZER_SPEC))).get(_PRECOMPILED_CHARSMAP, b""))


def adds_dummy_prefix(model: bytes) -> bool:
    """Whether a text is read as if a blank stood before it. Raises as `model_type` does."""
    return bool(dict(_fields(_last(model, _NORMALIZER_SPEC))).get(_ADD_DUMMY_PREFIX, 1))


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
