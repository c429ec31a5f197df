"""Every benchmark runs to its end at a tiny size, so that none can rot. What it measures is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if '"--smoke"' in path.read_text())


def run_module(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_a_table_with_numbers_in_it(name):
    rows = [line for line in run_module(name, "--smoke").splitlines() if line.startswith("|")]
    assert len(rows) >= 3, "a header, a rule, a row"
    assert any(character.isdigit() for row in rows[2:] for character in row)


def test_the_plot_shows_ours_and_every_peer_but_no_roof(tmp_path):
    rows = [
        {"name": "ours, packed", "tokens": 8000, "seconds": [2.5, 2.0]},
        {"name": "transformers, batch 32", "tokens": 8000, "seconds": [9.0, 8.0]},
        {"name": "roof: linear layers alone", "tokens": 8000, "seconds": [1.0, 1.0]},
    ]
    found, image = tmp_path / "engine.json", tmp_path / "engine.svg"
    found.write_text(json.dumps({"machine": "any", "corpora": {"L": rows}}))
    run_module("plot", str(found), str(image))
    drawn = image.read_text()
    assert all(text in drawn for text in ("ours, packed", "4,000", "transformers, batch 32", "1,000", "4.00 x"))
    assert "roof" not in drawn
    run_module("plot", str(found), str(tmp_path / "again.svg"))
    assert (tmp_path / "again.svg").read_text() == drawn, "the same figures are the same file"
