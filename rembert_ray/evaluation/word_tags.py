"""From the tags of words to entities, as seqeval (and conlleval) read them. It knows no rows and no characters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

CONTINUING = ("I", "E", "L")
CLOSING = ("", "E", "L", "S", "U")
OUTSIDE = "O"
Entity = tuple[str, int, int]
"""Type, first word, word behind the last."""


def entities_of(tags: Sequence[str | None]) -> set[Entity]:
    """The entities of a sentence.

    seqeval's default mode: I-, E- and L- continue an entity of the same type and begin one where there is none; S- and
    U- stand alone. A tag without such a prefix (a part of speech) is an entity of one word. `O` and None are outside.
    """
    found: set[Entity] = set()
    open_type: str | None = None
    start = 0
    for place, tag in enumerate([*tags, None]):
        prefix, kind = ("", None) if tag is None else split_tag(tag)
        if open_type is not None and (prefix not in CONTINUING or kind != open_type):
            found.add((open_type, start, place))
            open_type = None
        if kind is None:
            continue
        if open_type is None:
            open_type, start = kind, place
        if prefix in CLOSING:
            found.add((open_type, start, place + 1))
            open_type = None
    return found


def are_plain(tags: Sequence[str | None]) -> bool:
    """Whether tags are names of types alone, such as parts of speech: some are not `O`, and none has a prefix."""
    parts = [split_tag(tag) for tag in tags if tag is not None]
    return any(kind is not None for _, kind in parts) and not any(prefix for prefix, _ in parts)


def without_prefixes(tags: Sequence[str | None]) -> list[str | None]:
    """`B-NOUN` as `NOUN`; `O` and None stay."""
    return [None if tag is None else split_tag(tag)[1] or OUTSIDE for tag in tags]


@lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str, str | None]:
    """(`B`, `I`, `E`, `S`, `L`, `U` or nothing; type, None for `O`)."""
    if tag == OUTSIDE:
        return "", None
    return (tag[0], tag[2:]) if tag[1:2] == "-" and tag[0] in "BIESLU" else ("", tag)
