"""Widths of characters are the normalizer's, and neighbours that it joins are found wherever they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from rembert_ray.tokenizers.characters import Characters, code_points
from rembert_ray.tokenizers.model_fields import character_map

MODEL = (Path(__file__).parent.parent / "data" / "tiny_multilingual_8k.model").read_bytes()
CHARACTERS = Characters(sentencepiece.SentencePieceProcessor(model_proto=MODEL), character_map(MODEL))


def test_widths() -> None:
    expected = {"a": 1, " ": 0, "\t": 0, "\u200b": 0, "\x01": 0, "▁": 0, "日": 1, "ﬁ": 2, "½": 3, "…": 3, "\u0301": 1}
    for _ in ("asked", "remembered"):
        assert dict(zip(expected, CHARACTERS.widths(code_points(list(expected))).tolist(), strict=True)) == expected
    assert CHARACTERS.widths(code_points(["ﷺ"])).tolist() > [18]
    assert CHARACTERS.widths(code_points([])).tolist() == []


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", []),
        ("a", []),
        ("\u0301", []),
        ("e\u0301", [1]),
        ("xe\u0301\u0323 か\u3099", [2, 6]),
        (" \u0301%\u0301", []),
    ],
)
def test_joined(text: str, places: list[int]) -> None:
    assert CHARACTERS.joined(code_points([text])).tolist() == places
