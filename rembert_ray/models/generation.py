"""Placeholder while written by its author: see below."""

from __future__ import annotations


class Generation:
    """Adds `generate` to a causal model."""
