"""What no model can be built from, said of a configuration before anything is loaded. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rembert_ray.errors import Fault

if TYPE_CHECKING:
    from rembert_ray.models.config import EncoderConfig

ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu", "silu")


def config_faults(config: EncoderConfig, where: str) -> list[Fault]:
    """Every value of a wrong type or out of range; if there are none, every contradiction between values."""
    return [*_wrong_values(config, where)] or [*_contradictions(config, where)]


def _wrong_values(config: EncoderConfig, where: str) -> Iterator[Fault]:
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and not (_is_whole(value) and value >= 0):
            yield Fault(where, f"{field.name} is {value!r}, not a whole number")
        elif field.name == "vocab_size" and not value:
            yield Fault(where, f"vocab_size is {value!r}, not a whole number above 0")
        elif field.type == "int | None" and not (value is None or (_is_whole(value) and value >= 0)):
            yield Fault(where, f"{field.name} is {value!r}, not an id")
        elif field.type in ("float", "float | None") and not (value is None and "None" in field.type):
            is_right, wanted = _wanted_number(field.name)
            if not (_is_number(value) and is_right(value)):
                yield Fault(where, f"{field.name} is {value!r}, not {wanted}")


def _contradictions(config: EncoderConfig, where: str) -> Iterator[Fault]:
    if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        sizes = f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads"
        yield Fault(where, f"{sizes} {config.num_attention_heads}")
    if config.hidden_act not in ACTIVATIONS:
        yield Fault(where, f"hidden_act {config.hidden_act!r} is not known", "known: " + ", ".join(ACTIVATIONS))
    if config.positions_skip_padding and config.pad_token_id is None:
        yield Fault(where, "pad_token_id is missing", "positions are counted from it")
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        yield Fault(where, f"pad_token_id {config.pad_token_id} is not below vocab_size {config.vocab_size}")
    if config.add_cross_attention and not config.is_decoder:
        yield Fault(where, "add_cross_attention without is_decoder", "set is_decoder to true")


def _wanted_number(name: str) -> tuple[Callable[[float], bool], str]:
    if "dropout" in name:
        return lambda value: 0 <= value <= 1, "a number from 0 to 1"
    return lambda value: value >= 0, "a number of at least 0"


def _is_whole(value: Any) -> bool:
    # bool is an int in Python: `vocab_size: true` must not pass as 1.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
