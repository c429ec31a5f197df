"""How good the demo's trained models are on the held-back sentences: the figures in their `accuracy.json`.

Used by `train_heads.py` and the tests. Sentences that a model was trained on must not count here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from head_batches import Texts, gather
from sentences import LANGUAGES, Piece, Sentence, pick_words
from torch import Tensor
from train import IGNORED, MASK, pad

EVALUATED_AT_ONCE = 64
Figures = dict[str, float]


def label_ranks(model: Any, rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """For each label that counts: how many tokens the model finds more probable, and its log-probability."""
    ranks, logs = [], []
    rows = sorted(rows, key=lambda row: len(row[0]))
    for start in range(0, len(rows), EVALUATED_AT_ONCE):
        some = rows[start : start + EVALUATED_AT_ONCE]
        ids, labels = pad([ids for ids, _ in some], 0), pad([labels for _, labels in some], IGNORED)
        counted = labels != IGNORED
        with torch.inference_mode():
            hidden = model.encoder(ids, (ids != 0).long(), use_cache=False).last_hidden_state
            scores = model.head(hidden[counted]).log_softmax(-1)
        own = scores.gather(1, labels[counted][:, None])
        ranks.append((scores > own).sum(1))
        logs.append(own[:, 0])
    return torch.cat(ranks), torch.cat(logs)


def top_shares(ranks: Tensor, labels: list[tuple[str, int]], trained: Iterable[tuple[str, int]]) -> Figures:
    """Shares of (language, label) found among the best 1 and 5.

    And what those find that guess the most frequent ones of the language in `trained` each time.
    """
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for language, label in trained:
        counts[language][label] += 1
    shares = {f"top_{k}": (ranks < k).float().mean().item() for k in (1, 5)}
    for k in (1, 5):
        guesses = {language: {label for label, _ in counted.most_common(k)} for language, counted in counts.items()}
        shares[f"guess_top_{k}"] = float(np.mean([label in guesses[language] for language, label in labels]))
    return shares


def evaluate_classify(model: Any, texts: Texts) -> Figures:
    """Share of held-back sentences whose language is found, by language and over `all`."""
    right: Counter[str] = Counter()
    rows = list(zip(texts.ids([s.text for s in texts.held_back]), texts.held_back, strict=True))
    for batch in gather(rows, np.random.default_rng(0)):
        ids = pad([ids for ids, _ in batch], 0)
        with torch.inference_mode():
            best = model(ids, attention_mask=(ids != 0).long()).logits.argmax(-1).tolist()
        right.update(
            sentence.language
            for index, (_, sentence) in zip(best, batch, strict=True)
            if LANGUAGES[index] == sentence.language
        )
    counts = Counter(sentence.language for sentence in texts.held_back)
    shares = {language: right[language] / counts[language] for language in LANGUAGES}
    return {**shares, "all": right.total() / counts.total()}


def evaluate_fill_mask(model: Any, texts: Texts) -> Figures:
    """One word of one piece is hidden in each held-back sentence; shares of those that are found."""
    random = np.random.default_rng(0)
    chosen = [pick_words(row, 1, random) for row in pieces_of(texts, texts.held_back)]
    pairs = [(s, words) for s, words in zip(texts.held_back, chosen, strict=True) if words]
    masked = texts.ids([texts.masker.hide(sentence.text, words) for sentence, words in pairs])
    rows, answers = [], []
    for ids, (sentence, (word,)) in zip(masked, pairs, strict=True):
        if MASK in ids:
            rows.append((ids, [word.id if token == MASK else IGNORED for token in ids]))
            answers.append((sentence.language, word.id))
    ranks, _ = label_ranks(model, rows)
    trained = (
        (sentence.language, piece.id)
        for sentence, row in zip(texts.train, pieces_of(texts, texts.train), strict=True)
        for piece in row
        if piece.is_word
    )
    return {**top_shares(ranks, answers, trained), "n_masks": len(rows)}


def pieces_of(texts: Texts, sentences: list[Sentence]) -> list[list[Piece]]:
    """The pieces of each sentence."""
    return texts.masker.pieces([s.text for s in sentences], [s.language for s in sentences])


def evaluate_generate(model: Any, texts: Texts) -> Figures:
    """Shares of next pieces of held-back sentences that are found, and the perplexity of a piece."""
    rows = texts.ids([sentence.text for sentence in texts.held_back])
    ranks, logs = label_ranks(model, [(ids, [*ids[1:], IGNORED]) for ids in rows])
    labels, trained = (
        [(s.language, token) for s, ids in zip(sentences, some, strict=True) for token in ids[1:]]
        for sentences, some in (
            (texts.held_back, rows),
            (texts.train, texts.ids([sentence.text for sentence in texts.train])),
        )
    )
    return {**top_shares(ranks, labels, trained), "perplexity": float((-logs.mean()).exp())}
