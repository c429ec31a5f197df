"""JSON files that somebody else made: read whole, within limits, or refused with a reason.

Nesting, size, numbers and duplicate keys are limited before anything is built from them, so that no file of a model
folder can exhaust memory or the stack. It knows nothing of what the values mean.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.location import Location, read_bytes

MAX_JSON_BYTES = 16 * 2**20
MAX_VALUES = 2_000_000
MAX_DEPTH = 32
# Hugging Face writes 10**30 where a tokenizer has no limit.
MAX_DIGITS = 64
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json_object(location: Location, fix: str = "copy the file again") -> dict[str, Any]:
    """The JSON object in a file of at most 16 MiB.

    Raises `UnusableError` for anything else, with `fix`; otherwise as `read_bytes`.
    """
    data = read_bytes(location, most_bytes=MAX_JSON_BYTES)
    try:
        return parse_json_object(data)
    except ValueError as error:
        raise UnusableError(Fault(str(location), f"is not a JSON object: {error}", fix)) from error


def parse_json_object(data: bytes) -> dict[str, Any]:
    """The object in a JSON text of UTF-8: no duplicate keys, no NaN, at most 32 levels and about 2,000,000 values.

    Raises ValueError with what is wrong.
    """
    # Every value but the first of a list or object stands behind a comma; one can be 20 times as large as its text.
    n_values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if n_values > MAX_VALUES:
        raise ValueError(f"it has up to {n_values:,} values, the most is {MAX_VALUES:,}")
    try:
        value = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_float,
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}")
    _check_depth(value)
    if _SURROGATE.search(data):
        _check_characters(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} is written twice")
    return values


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
    if level:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _children(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
