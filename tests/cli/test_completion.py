"""Shells complete verbs and options, as `--install-completion` sets it up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("st", {"status"}),
        ("re", {"report", "retry"}),
        ("run --dr", {"--dry-run"}),
        ("plan --pri", {"--price-per-hour"}),
    ],
)
def test_verbs_and_options_are_completed(typed: str, expected: set[str]) -> None:
    words = f"rembert-ray {typed}"
    environment = os.environ | {
        "_REMBERT_RAY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = [sys.executable, "-c", "from rembert_ray.cli import app; app(prog_name='rembert-ray')"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert set(done.stdout.split()) == expected, done.stderr
