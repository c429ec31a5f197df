"""A full-size RemBERT (576 M random weights made here) loads without a second copy of itself in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_peak_of_a_load_is_at_most_1_2_times_the_weights():
    command = [sys.executable, "-m", "benchmarks.load", "--json", "--stored", "bfloat16", "--loaders", "rembert-ray"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loads = json.loads(done.stdout)
    assert [load["loaded"] for load in loads] == ["float32", "bfloat16", "float16"]
    for load in loads:
        assert load["weights_bytes"] == 575_920_384 * (4 if load["loaded"] == "float32" else 2)
        assert load["peak_bytes"] <= 1.2 * load["weights_bytes"], load
