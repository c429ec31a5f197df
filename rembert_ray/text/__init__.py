"""Arithmetic between texts, tokens and characters: numpy only, with neither vocabulary nor model."""
