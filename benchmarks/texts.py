"""What the benchmarks read: real texts of real lengths, and a vocabulary of RemBERT's size. No network.

Texts are those of the demo (see demo/NOTICE.md), the vocabulary is that of data/NOTICE.md: 250,300 pieces in RemBERT's
layout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rembert_ray.engine.documents import WindowOptions, window_texts
from rembert_ray.engine.packing import WindowTable
from rembert_ray.tokenizers.rembert import RemBertTokenizer

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "benchmarks" / "data" / "tokenizer"
DEMO = ROOT / "demo"
MIXED = ("treebanks/treebanks", "corpus/treebank_sentences", "corpus/sib200_sentences", "corpus/xquad_paragraphs")
LONG = ("corpus/xquad_paragraphs", "corpus/udhr_documents", "corpus/botchan_document")
SHORT = ("corpus/tatoeba_sentences", *MIXED[:3])
WINDOW_TOKENS = 512
N_SPECIAL = 2
TITLE_TOKENS = (10, 20)
DOCUMENTS_AT_ONCE = 20
SEED = 20


@cache
def load_tokenizer() -> RemBertTokenizer:
    """The tokenizer with 250,300 pieces; loading takes about a second."""
    return RemBertTokenizer.from_pretrained(TOKENIZER)


def real_lengths(n_texts: int) -> list[str]:
    """Corpus L: sentences of treebanks and SIB-200 and paragraphs of XQuAD, each as often as there are, shuffled."""
    return _draw(_distinct(MIXED), n_texts)


def titles(n_texts: int) -> list[str]:
    """Corpus S: short sentences of 12 to 22 tokens, special ones included, about 16 on average."""
    texts = _distinct(SHORT)
    n_tokens = load_tokenizer().encode_batch(texts, add_special_tokens=False).lengths
    least, most = TITLE_TOKENS
    return _draw([text for text, n in zip(texts, n_tokens.tolist(), strict=True) if least <= n <= most], n_texts)


def full_windows(n_texts: int) -> list[str]:
    """Corpus U: pieces of documents that are exactly 512 tokens, special ones included."""
    return _draw(list(_pieces(_distinct(LONG))), n_texts)


CORPORA: dict[str, Callable[[int], list[str]]] = {"L": real_lengths, "U": full_windows, "S": titles}


def windows_of(texts: list[str]) -> WindowTable:
    """Every text as windows of at most 512 tokens of which all tokens are read, in the order of the texts."""
    tokenizer = load_tokenizer()
    encoding = tokenizer.encode_batch(texts, add_special_tokens=False)
    options = WindowOptions(WINDOW_TOKENS, overlap=0)
    unk_id = tokenizer.unk_token_id
    assert unk_id is not None
    return window_texts(encoding, tokenizer.template, options, keeps_special_tokens=True, unk_id=unk_id).windows


def _distinct(names: tuple[str, ...]) -> list[str]:
    """Texts of the demo's files, each once."""
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys(pq.read_table(DEMO / f"{name}.parquet").column("text").to_pylist())
    return list(found)


def _draw(pool: list[str], n_texts: int) -> list[str]:
    """Texts in shuffled order; where there are too few, again with a number behind, so that none equals another."""
    order = np.random.default_rng(SEED).permutation(len(pool)).tolist()
    chosen = []
    for turn in itertools.count():
        suffix = f" {turn}" if turn else ""
        chosen += [pool[index] + suffix for index in order[: n_texts - len(chosen)]]
        if len(chosen) == n_texts:
            return chosen
    raise AssertionError


def _pieces(documents: list[str]) -> Iterator[str]:
    tokenizer = load_tokenizer()
    n_inner = WINDOW_TOKENS - N_SPECIAL
    for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
        text = "\n".join(documents[first : first + DOCUMENTS_AT_ONCE])
        encoding = tokenizer.encode_batch([text], add_special_tokens=False, with_offsets=True)
        assert encoding.offsets is not None
        bounds = encoding.offsets[::n_inner, 0].tolist()
        pieces = [text[start:end] for start, end in itertools.pairwise(bounds)]
        # Cut out of its document a text may tokenize otherwise: only what is exactly full is taken.
        n_tokens = tokenizer.encode_batch(pieces, add_special_tokens=False).lengths
        yield from (piece for piece, n in zip(pieces, n_tokens.tolist(), strict=True) if n == n_inner)
