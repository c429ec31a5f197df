"""Exact match and F1 of short answers, as SQuAD counts them. Strings only; it knows no rows.

Source: the official evaluation of SQuAD 1.1 (Rajpurkar et al. 2016), which XQuAD uses for all its languages and
`evaluate` calls `squad`; for questions without an answer that of SQuAD 2.0. Words are what white space separates after
normalization, so in Chinese, Thai or Japanese a whole answer is mostly one word and F1 hardly more than exact match.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, one blank between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score_answer(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1), 0 to 1: the best over the gold answers.

    Without any gold answer (none at all, or only empty ones) "no answer" is right: a prediction that is nothing after
    normalization.
    """
    answers = [gold for gold in golds if gold]
    predicted = normalize_answer(prediction)
    if not answers:
        return (1.0, 1.0) if not predicted else (0.0, 0.0)
    normalized = {normalize_answer(gold) for gold in answers}
    words = predicted.split()
    return float(predicted in normalized), max(_f1(words, gold.split()) for gold in normalized)


def _f1(predicted: list[str], gold: list[str]) -> float:
    n_same = (Counter(predicted) & Counter(gold)).total()
    return 2 * n_same / (len(predicted) + len(gold)) if n_same else 0.0
