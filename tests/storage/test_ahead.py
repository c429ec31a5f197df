"""Results come in order, whichever is read first, and no more is read than a window ahead."""

from __future__ import annotations

import threading

import pytest

from rembert_ray.storage.ahead import N_AHEAD, read_ahead


def test_results_are_in_order_and_only_a_window_is_read_ahead():
    read, last = [], threading.Event()

    def slow_first(number):
        if number == 0:
            assert last.wait(60)
        read.append(number)
        if number == N_AHEAD - 1:
            last.set()
        return number

    found = read_ahead(slow_first, range(3 * N_AHEAD))
    assert next(found) == 0
    assert sorted(read) == list(range(N_AHEAD))
    assert list(found) == list(range(1, 3 * N_AHEAD))


def test_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda number: 1 // number, [1, 0]))
