"""Measured against the peers, one command each: `python -m benchmarks.<name>`. Figures are in RESULTS.md."""
