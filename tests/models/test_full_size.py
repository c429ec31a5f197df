"""A full-size RemBERT (576 M random weights made here) loads without a second copy of itself in memory."""

from __future__ import annotations

import pytest

from benchmarks.load import LOADED, measure, write_random_checkpoint
from rembert_ray.models.config import RemBertConfig


@pytest.mark.slow
def test_the_peak_of_a_load_is_at_most_1_2_times_the_weights(tmp_path):
    write_random_checkpoint(tmp_path, "bfloat16", RemBertConfig())
    for loaded in LOADED:
        load = measure(tmp_path, "rembert-ray", loaded)
        assert load["weights_bytes"] == 575_920_384 * (4 if loaded == "float32" else 2)
        assert load["peak_bytes"] <= 1.2 * load["weights_bytes"], loaded
