"""Padded batches: every window once, in the order of the table, whatever the order of the batches."""

import numpy as np
import pytest
from torch import Tensor

from benchmarks.padded import Vectors, count_tokens, pad_batches, run_batches
from rembert_ray.engine.packing import WindowTable
from rembert_ray.ragged import splits

LENGTHS = np.array([3, 1, 4, 1, 5], np.int64)
IDS = np.arange(1, 15, dtype=np.int32)


def sums(ids: Tensor, mask: Tensor) -> Vectors:
    return (ids * mask).sum(1, keepdim=True).float().numpy()


@pytest.mark.parametrize(("is_sorted", "n_computed"), [(False, 2 * 3 + 2 * 4 + 5), (True, 2 * 5 + 2 * 3 + 1)])
def test_vectors_come_back_in_the_order_of_the_table(is_sorted: bool, n_computed: int) -> None:
    table = WindowTable.from_ranges(IDS, splits(LENGTHS), np.zeros(5, np.int64), LENGTHS)
    batches = pad_batches(table, 2, is_sorted=is_sorted)
    assert count_tokens(batches) == n_computed
    assert run_batches(sums, batches)[:, 0].tolist() == [6, 4, 26, 9, 60]
