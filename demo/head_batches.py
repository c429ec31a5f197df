"""Batches of the demo's sentences for each task that is trained: identify a language, fill masks, continue.

Used by `train_heads.py` and `head_figures.py`. Sentences are drawn at random, of like length in a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentences import LANGUAGES, Masker, Sentence, read_sentences
from torch import Tensor
from train import CLS, IGNORED, MASK, SEP, pad

from rembert_ray.tokenizers.rembert import RemBertTokenizer

MAX_TOKENS = 128
# Small batches, many steps: there is little time to learn in.
BATCH_TOKENS = 1024
# Few of them are hidden, so a step of this kind needs more. Only words are: with their parts as well, the model
# was still filling in single letters at the end.
MASKED_BATCH_TOKENS = 4096
MASKED_SHARE_OF_WORDS = 0.5
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Texts:
    """Sentences, those to train on and those held back, and what makes ids of them."""

    tokenizer: RemBertTokenizer
    masker: Masker
    train: list[Sentence]
    held_back: list[Sentence]

    @classmethod
    def read(cls, demo: Path, task: str) -> Texts:
        """With the vocabulary in the folder of `task`."""
        tokenizer = RemBertTokenizer.from_pretrained(str(demo / task))
        sentences = read_sentences(demo)
        train = [sentence for sentence in sentences if not sentence.is_held_back]
        held_back = [sentence for sentence in sentences if sentence.is_held_back]
        return cls(tokenizer, Masker(tokenizer), train, held_back)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """`[CLS] text [SEP]` of each text; a longer one than MAX_TOKENS loses its end and [SEP]."""
        encoding = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        rows = np.split(encoding.ids, encoding.row_splits[1:-1])
        return [[CLS, *row.tolist(), SEP][:MAX_TOKENS] for row in rows]


def shuffle(texts: Texts, evenness: float, random: np.random.Generator) -> Iterator[list[Sentence]]:
    """Endless lots of 512 sentences. `evenness`: 0, languages as the corpus has them; 1, all alike."""
    counts = Counter(sentence.language for sentence in texts.train)
    weights = np.array([counts[sentence.language] ** -evenness for sentence in texts.train])
    while True:
        yield [texts.train[i] for i in random.choice(len(weights), 512, p=weights / weights.sum())]


def gather(
    rows: list[tuple[list[int], Any]], random: np.random.Generator, n_tokens: int = BATCH_TOKENS
) -> Iterator[list[tuple[list[int], Any]]]:
    """Batches of rows of like length with about `n_tokens` tokens, in random order."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    batches: list[list[tuple[list[int], Any]]] = [[]]
    for row in rows:
        if len(row[0]) * (len(batches[-1]) + 1) > n_tokens:
            batches.append([])
        batches[-1].append(row)
    for index in random.permutation(len(batches)):
        yield batches[index]


def language_batches(texts: Texts, random: np.random.Generator) -> Iterator[Batch]:
    """(ids, languages); often only a part of a sentence, so that few words must do."""
    for lot in shuffle(texts, 1.0, random):
        rows = []
        for ids, sentence in zip(texts.ids([sentence.text for sentence in lot]), lot, strict=True):
            if random.random() < 0.5 and len(ids) > 8:
                start = int(random.integers(1, len(ids) - 6))
                ids = [CLS, *ids[start : start + int(random.integers(5, 40))]]
            rows.append((ids, LANGUAGES.index(sentence.language)))
        for batch in gather(rows, random):
            yield pad([ids for ids, _ in batch], 0), torch.tensor([label for _, label in batch])


def masked_batches(texts: Texts, random: np.random.Generator) -> Iterator[Batch]:
    """(ids, labels) with a share of the words of one piece hidden in the text itself; see `Masker`."""
    for lot in shuffle(texts, 0.5, random):
        pieces = texts.masker.pieces([s.text for s in lot], [s.language for s in lot])
        hidden = [
            [piece for piece in row if piece.is_word and random.random() < MASKED_SHARE_OF_WORDS] for row in pieces
        ]
        masked = [texts.masker.hide(sentence.text, row) for sentence, row in zip(lot, hidden, strict=True)]
        rows = []
        for ids, row in zip(texts.ids(masked), hidden, strict=True):
            answers = iter(row)
            if MASK in ids:
                rows.append((ids, [next(answers).id if token == MASK else IGNORED for token in ids]))
        for batch in gather(rows, random, MASKED_BATCH_TOKENS):
            yield pad([ids for ids, _ in batch], 0), pad([labels for _, labels in batch], IGNORED)


def causal_batches(texts: Texts, random: np.random.Generator) -> Iterator[Batch]:
    """(ids, the ids one place to the left)."""
    for lot in shuffle(texts, 0.5, random):
        rows = [(ids, [*ids[1:], IGNORED]) for ids in texts.ids([sentence.text for sentence in lot])]
        for batch in gather(rows, random):
            yield pad([ids for ids, _ in batch], 0), pad([labels for _, labels in batch], IGNORED)
