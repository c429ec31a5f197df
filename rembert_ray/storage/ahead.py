"""Reads a few objects at a time and gives them in order: a store answers slowly, but many at once.

It does not know what is read, and never holds more than a window of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

N_AHEAD = 4


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`read` of each item, in order, `N_AHEAD` in memory at most; what it raises is raised here."""
    rest = iter(items)
    with ThreadPoolExecutor(N_AHEAD) as pool:
        while window := list(islice(rest, N_AHEAD)):
            yield from pool.map(read, window)
