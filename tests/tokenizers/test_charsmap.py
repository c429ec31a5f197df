"""The pairs that are read off the character map are those that the normalizer composes, and no rule is missed."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from rembert_ray.tokenizers.charsmap import N_CODE_POINTS, joined_pairs, pair_key
from rembert_ray.tokenizers.model_fields import character_map

MODEL = (Path(__file__).parent.parent / "data" / "tiny_multilingual_8k.model").read_bytes()


@pytest.fixture(scope="module")
def pairs() -> set[tuple[int, int]]:
    return {divmod(key, N_CODE_POINTS) for key in joined_pairs(character_map(MODEL)).tolist()}


def test_they_begin_the_decompositions_of_unicode(pairs: set[tuple[int, int]]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
    n_checked = 0
    for code in range(0x00C0, 0x3100):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) < 2 or processor.normalize(parts) == "".join(map(processor.normalize, parts)).replace("▁", "", 1):
            continue
        alone = "".join(processor.normalize(part).strip("▁") for part in parts)
        if processor.normalize(parts).strip("▁") != alone:
            n_checked += 1
            assert any((ord(a), ord(b)) in pairs for a, b in itertools.pairwise(parts)), hex(code)
    assert n_checked > 500


def test_ordinary_neighbours_are_not_among_them(pairs: set[tuple[int, int]]) -> None:
    assert (ord("e"), 0x301) in pairs
    assert (0x1112, 0x1161) in pairs
    assert not {(ord(a), ord(b)) for a, b in zip("the cat", "he cat.", strict=True)} & pairs
    assert not any(first < 0x80 and second < 0x80 for first, second in pairs)


def test_no_map_has_no_pairs() -> None:
    assert joined_pairs(b"").tolist() == []
    assert pair_key(np.array([1]), np.array([2])).tolist() == [N_CODE_POINTS + 2]
