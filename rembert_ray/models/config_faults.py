"""What no model can be built from, said of a configuration before anything is loaded. No torch.

A `config.json` is a few bytes that ask for gigabytes: sizes are limited before anything is made of them.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rembert_ray.errors import Fault

if TYPE_CHECKING:
    from rembert_ray.models.config import EncoderConfig

# Far above every model that there is, and low enough that names and shapes of such a model can be listed.
LARGEST = {"num_hidden_layers": 1_000, "vocab_size": 2**27, "max_position_embeddings": 2**24}
LARGEST_WIDTH = 2**20
MAX_STOP_IDS = 1_000
LONGEST_LABEL = 1_000
ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu", "silu")


def config_faults(config: EncoderConfig, where: str) -> list[Fault]:
    """Every value of a wrong type or out of range; if there are none, every contradiction between values."""
    return [*_wrong_values(config, where)] or [*_contradictions(config, where)]


def _wrong_values(config: EncoderConfig, where: str) -> Iterator[Fault]:
    for field in fields(config):
        value = getattr(config, field.name)
        is_right, wanted = _wanted(field.name, str(field.type))
        if not is_right(value):
            yield Fault(where, f"{field.name} is {reprlib.repr(value)}, not {wanted}")
    longest = max(map(len, config.id2label.values()), default=0)
    if longest > LONGEST_LABEL:
        yield Fault(where, f"id2label has a name of {longest:,} characters", f"the longest may have {LONGEST_LABEL:,}")


def _contradictions(config: EncoderConfig, where: str) -> Iterator[Fault]:
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        sizes = f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads"
        yield Fault(where, f"{sizes} {config.num_attention_heads}")
    if config.hidden_act not in ACTIVATIONS:
        yield Fault(
            where, f"hidden_act {reprlib.repr(config.hidden_act)} is not known", "known: " + ", ".join(ACTIVATIONS)
        )
    if config.positions_skip_padding and config.pad_token_id is None:
        yield Fault(where, "pad_token_id is missing", "positions are counted from it")
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        yield Fault(where, f"pad_token_id {config.pad_token_id} is not below vocab_size {config.vocab_size}")
    if config.add_cross_attention and not config.is_decoder:
        yield Fault(where, "add_cross_attention without is_decoder", "set is_decoder to true")


def _wanted(name: str, kind: str) -> tuple[Callable[[Any], bool], str]:
    """What a field of a type may hold, and its words."""
    if kind == "int":
        least, largest = int(name == "vocab_size"), LARGEST.get(name, LARGEST_WIDTH)
        return lambda value: _is_whole(value) and least <= value <= largest, f"a whole number from {least} to {largest}"
    if kind == "int | None":
        return lambda value: value is None or _is_id(value), "an id"
    if kind == "int | list[int] | None":
        return lambda value: value is None or _is_id(value) or _are_ids(value), "an id or a list of ids"
    if kind == "bool":
        return lambda value: isinstance(value, bool), "true or false"
    if kind == "list[str]":
        return lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of names"
    if kind == "dict[str, int]":
        return lambda value: isinstance(value, dict) and all(map(_is_id, value.values())), "a mapping of names to ids"
    if kind in ("float", "float | None"):
        most, wanted = (1.0, "a number from 0 to 1") if "dropout" in name else (math.inf, "a number of at least 0")
        return lambda value: (value is None and "None" in kind) or (_is_number(value) and 0 <= value <= most), wanted
    return lambda value: True, ""


def _is_id(value: Any) -> bool:
    return _is_whole(value) and 0 <= value < LARGEST["vocab_size"]


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_STOP_IDS and all(map(_is_id, value))


def _is_whole(value: Any) -> bool:
    # bool is an int in Python: `vocab_size: true` must not pass as 1.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # A comparison, because math.isfinite cannot take large integers.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
