"""The packed forward: token-budget batches, the runner, precision."""
