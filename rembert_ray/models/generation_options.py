"""What a user may set for `generate`: names and defaults of Hugging Face's `GenerationConfig`, checked. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from rembert_ray.errors import nearest
from rembert_ray.models.config import EncoderConfig

# Of Hugging Face's arguments, those that another one says better.
INSTEAD = {
    "max_length": "it counts the prompt, too: give max_new_tokens",
    "min_length": "it counts the prompt, too: give min_new_tokens",
    "generation_config": "give its values as keyword arguments",
    "generator": "give seed, a number or one for each row",
}
SAMPLING = ("temperature", "top_k", "top_p")
BEAM_SEARCH = ("length_penalty", "early_stopping")


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How to continue a prompt; the same for all rows of a call.

    Raises:
        ValueError: values out of range or that contradict each other, all of them at once.
    """

    max_new_tokens: int = 20
    """Where a row stops at the latest, in tokens after its prompt."""
    min_new_tokens: int = 0
    """Before this many tokens no stop id is chosen."""
    do_sample: bool = False
    """Draw the next token; otherwise take the most probable one."""
    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 50
    """Draw among this many most probable tokens; 0: among all."""
    top_p: float = 1.0
    """Draw among the fewest tokens whose probabilities add up to this (Holtzman et al. 2020, arXiv:1904.09751)."""
    repetition_penalty: float = 1.0
    """Tokens of the prompt and of the text so far lose by it (Keskar et al. 2019, arXiv:1909.05858)."""
    num_beams: int = 1
    """More than one: beam search with this many running hypotheses."""
    length_penalty: float = 1.0
    """A hypothesis scores its log-probability over its new tokens to this power."""
    early_stopping: bool | Literal["never"] = False
    """Stop a row with `num_beams` finished hypotheses: at once (True), when the best running one scores less as it
    is (False), or when it would score less at its best length ("never")."""
    num_return_sequences: int = 1
    """Rows to return for each prompt; with beam search the best ones."""
    eos_token_id: int | Sequence[int] | None = None
    """Ids that end a row; None: what the model's configuration says; an empty list: no id does."""
    pad_token_id: int | None = None
    """What follows the end of a row; None: what the model's configuration says, else the first stop id."""
    use_cache: bool = True
    """Keep keys and values; otherwise every step reads the whole row again."""

    def __post_init__(self) -> None:
        if isinstance(self.eos_token_id, list | tuple):
            object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id))
        if faults := [*self._out_of_range()] or [*self._contradictions()]:
            raise ValueError("; ".join(faults))

    @classmethod
    def from_keywords(cls, values: Mapping[str, Any]) -> Self:
        """The options of a call.

        Raises:
            ValueError: an option that is not known, and which one may be meant; or as for the class.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(values.keys() - known):
            raise ValueError(
                "; ".join(f"no option {name!r} ({INSTEAD.get(name, nearest(name, known))})" for name in unknown)
            )
        return cls(**values)

    def stop_ids(self, config: EncoderConfig) -> tuple[int, ...]:
        """Ids that end a row.

        Raises:
            ValueError: one of them is not in the vocabulary.
        """
        given = config.eos_token_id if self.eos_token_id is None else self.eos_token_id
        ids = () if given is None else (given,) if isinstance(given, int) else tuple(given)
        if outside := [token for token in ids if not 0 <= token < config.vocab_size]:
            size = config.vocab_size
            raise ValueError(f"eos_token_id {outside} is not in the vocabulary of {size}: pass an eos_token_id that is")
        return ids

    def padding_id(self, config: EncoderConfig) -> int | None:
        """What follows the end of a row; None where no row ends before the others and nothing says."""
        chosen = config.pad_token_id if self.pad_token_id is None else self.pad_token_id
        return next(iter(self.stop_ids(config)), None) if chosen is None else chosen

    def _out_of_range(self) -> Iterator[str]:
        for name, least in (("max_new_tokens", 1), ("min_new_tokens", 0), ("top_k", 0), ("num_beams", 1)):
            yield from self._faults(name, _is_int(getattr(self, name), least), f"a whole number of at least {least}")
        yield from self._faults("num_return_sequences", _is_int(self.num_return_sequences, 1), "a whole number above 0")
        for name in ("do_sample", "use_cache"):
            yield from self._faults(name, isinstance(getattr(self, name), bool), "True or False")
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            yield from self._faults(name, _is_number(value) and value > 0, "a number above 0")
        yield from self._faults("top_p", _is_number(self.top_p) and 0 <= self.top_p <= 1, "a number from 0 to 1")
        yield from self._faults("length_penalty", _is_number(self.length_penalty), "a number")
        can_stop = isinstance(self.early_stopping, bool) or self.early_stopping == "never"
        yield from self._faults("early_stopping", can_stop, "True, False or 'never'")
        stops = self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)
        are_ids = self.eos_token_id is None or all(_is_int(token, 0) for token in stops)
        yield from self._faults("eos_token_id", are_ids, "an id or a list of ids")
        yield from self._faults("pad_token_id", self.pad_token_id is None or _is_int(self.pad_token_id, 0), "an id")

    def _faults(self, name: str, is_right: bool, expected: str) -> Iterator[str]:
        if not is_right:
            yield f"{name} is {getattr(self, name)!r}, not {expected}"

    def _contradictions(self) -> Iterator[str]:
        changed = {f.name for f in fields(self) if getattr(self, f.name) != f.default}
        if self.min_new_tokens > self.max_new_tokens:
            yield f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}"
        if not self.do_sample and (idle := changed.intersection(SAMPLING)):
            yield f"{', '.join(sorted(idle))} without sampling: set do_sample=True, or leave it out"
        if self.num_beams == 1 and (idle := changed.intersection(BEAM_SEARCH)):
            yield f"{', '.join(sorted(idle))} without beam search: set num_beams, or leave it out"
        if self.num_beams > 1 and self.do_sample:
            yield "do_sample with num_beams: choose sampling or beam search"
        if self.num_beams == 1 and self.num_return_sequences > 1 and not self.do_sample:
            yield "num_return_sequences without sampling or beam search: all of them would be the same"
        if 1 < self.num_beams < self.num_return_sequences:
            yield f"num_return_sequences {self.num_return_sequences} is more than num_beams {self.num_beams}"


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
