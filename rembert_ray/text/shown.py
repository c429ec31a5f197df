"""A row of an output as a person should see it: a text with marks in it, bars, facts. Who draws it is no matter here.

Terminal and page draw the same `Shown`. This file knows neither of them, no task and no storage; it does not escape
what it holds: texts come from others, and whoever draws them must neutralize what their medium would obey.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

MOST_CHARACTERS = 400
AROUND = 60
SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Mark:
    """A part of the text, in Unicode characters; `score` from 0 to 1, None where there is none."""

    start: int
    end: int
    label: str
    score: float | None = None


@dataclass(frozen=True)
class Bar:
    """A label with its share, from 0 to 1; bars of one `group` belong together, such as those of one mask."""

    label: str
    share: float
    group: str = ""


@dataclass(frozen=True)
class Shown:
    """What there is to see of a row.

    title: what the text is about, such as a question. text: "" where the source cannot be read. marks: in any order,
    overlapping ones, too; what lies beyond the text is not drawn. facts: name and value of what has no place in a text.
    """

    title: str = ""
    text: str = ""
    marks: tuple[Mark, ...] = ()
    bars: tuple[Bar, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    def plus(self, *facts: tuple[str, str]) -> Shown:
        """The same with further facts."""
        return replace(self, facts=(*self.facts, *facts))


@dataclass(frozen=True)
class Piece:
    """Characters of a text that lie in the same marks, the shortest one first. `closes`: the marks that end here."""

    text: str
    marks: tuple[Mark, ...]
    closes: tuple[Mark, ...]


def pieces(text: str, marks: Iterable[Mark], start: int = 0, end: int | None = None) -> Iterator[Piece]:
    """Characters [start, end) of a text, all of them once and in order, cut where a mark begins or ends."""
    end = len(text) if end is None else end
    inside = sorted((mark for mark in marks if max(mark.start, start) < min(mark.end, end)), key=_length)
    edges = {start, end} | {min(max(edge, start), end) for mark in inside for edge in (mark.start, mark.end)}
    cuts = sorted(edges)
    for first, last in pairwise(cuts):
        covering = tuple(mark for mark in inside if mark.start < last and mark.end > first)
        yield Piece(text[first:last], covering, tuple(mark for mark in covering if min(mark.end, end) == last))


def _length(mark: Mark) -> int:
    return mark.end - mark.start


def excerpts(text: str, marks: Iterable[Mark], most: int = MOST_CHARACTERS, around: int = AROUND) -> list[range]:
    """The parts of a text to show, in order and apart from each other: all of a short one.

    Of a longer one at most `most` characters: its marks with so many characters `around` them, else its beginning.
    """
    if len(text) <= most:
        return [range(len(text))]
    found: list[range] = []
    left = most
    inside = (mark for mark in marks if mark.end > mark.start and 0 <= mark.start < len(text))
    for mark in sorted(inside, key=lambda mark: mark.start):
        start, end = max(0, mark.start - around), min(len(text), mark.end + around)
        touches = bool(found) and start <= found[-1].stop
        first = found[-1].stop if touches else start
        last = min(end, first + left)
        if last > first:
            found[-1:] = [range(found[-1].start, last)] if touches else [*found[-1:], range(first, last)]
            left -= last - first
        if not left:
            break
    return found or [range(most)]


def tints(labels: Iterable[str], n_tints: int) -> dict[str, int]:
    """A number below `n_tints` for each label: the same for a label each time, another for each while there are some.

    Labels whose numbers clash take the next free one, in alphabetical order.
    """
    found: dict[str, int] = {}
    for label in sorted(set(labels)):
        wanted = zlib.crc32(label.encode("utf-8", "replace")) % n_tints
        free = [number for number in range(n_tints) if number not in found.values()]
        later = [number for number in free if number >= wanted]
        found[label] = (later or free or [wanted])[0]
    return found


def sparkline(numbers: Sequence[float]) -> str:
    """Numbers as a line of blocks from the least to the largest one; what is not finite is a blank."""
    finite = [number for number in numbers if abs(number) < float("inf")]
    least, most = min(finite, default=0.0), max(finite, default=0.0)
    step = (most - least) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((n - least) / step)] if abs(n) < float("inf") else " " for n in numbers)
