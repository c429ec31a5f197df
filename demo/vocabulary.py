"""Trains the demo's own SentencePiece vocabulary, `model/sentencepiece.model`, on the demo's texts.

    python demo/vocabulary.py [--demo demo] [--vocabulary-size 12000]

The layout is RemBERT's in small: `<pad>` 0, `</s>` 1, `<unk>` 2, `<s>` 3, then [CLS], [SEP] and [MASK] as
control symbols, which SentencePiece never matches in raw text: the tokenizer parses them, as it does with
the published vocabulary. The same files give the same bytes (with the same sentencepiece). This file must not
read sentences of the split `heldout`: a vocabulary that has seen them would flatter the demo's figures.
"""

from __future__ import annotations

import argparse
import io
import string
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sentencepiece

NORMALIZATION = "nmt_nfkc"
# What both vocabularies of the demo share: the layout above, and the same bytes from the same files.
TRAINING: dict[str, Any] = {
    "byte_fallback": False,
    "split_by_unicode_script": True,
    "max_sentencepiece_length": 10,
    "max_sentence_length": 1 << 16,
    "shuffle_input_sentence": False,
    "num_threads": 1,
    "pad_id": 0,
    "eos_id": 1,
    "unk_id": 2,
    "bos_id": 3,
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
    "minloglevel": 1,
}
# The treebanks are what the demo's model is trained on, so their words weigh most.
TREEBANK_REPEATS = 3
# Languages that write words, or the particles before them, without a space: their corpus texts would teach pieces
# that straddle words, so only the treebanks, with their word boundaries, tell their pieces.
UNSPACED_LANGUAGES = frozenset({"ar", "ja", "zh"})
WORD_BOUNDARY = "\u241f"
# Characters that the treebanks lack: enough that such documents are not all <unk>, no more.
N_FOREIGN_CHARACTERS = 2000


def read_treebank_sentences(demo: Path) -> dict[str, list[str]]:
    """Language -> the sentences of the training split, with a mark at word boundaries that have no space.

    No piece is learnt across a mark, so that (nearly) every word begins with a piece of its own.
    """
    table = pq.read_table(
        demo / "treebanks/treebanks.parquet",
        columns=["language", "text", "starts"],
        filters=[("split", "=", "train")],
    )
    sentences: dict[str, list[str]] = {}
    for row in table.to_pylist():
        text = row["text"]
        marks = [start for start in row["starts"] if start > 0 and not text[start - 1].isspace()]
        words = (text[start:end] for start, end in pairwise([0, *marks, len(text)]))
        sentences.setdefault(row["language"], []).append(WORD_BOUNDARY.join(words))
    return sentences


def read_corpus(demo: Path) -> list[tuple[str, str]]:
    """(language without script, text) of the corpus, short texts first; without the held-back sentences."""
    rows: list[tuple[str, str]] = []
    for path in sorted((demo / "corpus").glob("*.parquet")):
        if path.name != "treebank_sentences.parquet":
            table = pq.read_table(path, columns=["language", "text"])
            languages = (tag.partition("-")[0] for tag in table["language"].to_pylist())
            rows.extend(zip(languages, table["text"].to_pylist(), strict=True))
    return sorted(rows, key=lambda row: len(row[1]))


def iterate_training_lines(treebanks: dict[str, list[str]], corpus: list[tuple[str, str]]) -> Iterator[str]:
    """What the vocabulary is trained on, line by line.

    The corpus gives a language at most as many characters as its repeated treebank sentences: else English,
    with a whole novel, would take the pieces that French and Turkish need.
    """
    room: Counter[str] = Counter()
    for language, sentences in treebanks.items():
        room[language] = TREEBANK_REPEATS * sum(map(len, sentences))
        for _ in range(TREEBANK_REPEATS):
            yield from sentences
    for language, text in corpus:
        for line in text.splitlines():
            if language not in UNSPACED_LANGUAGES and room[language] >= len(line) > 0:
                room[language] -= len(line)
                yield line


def pick_foreign_characters(corpus: list[tuple[str, str]], languages: set[str]) -> str:
    """The characters that cover most of the texts in the other languages, as the normalizer writes them.

    A character counts by its share of each text, so that a short text in a rare script weighs as much as any.
    """
    normalizer = sentencepiece.SentencePieceNormalizer(rule_name=NORMALIZATION)
    shares: defaultdict[str, float] = defaultdict(float)
    for language, text in corpus:
        if language not in languages:
            counts = Counter(normalizer.normalize(text))
            total = counts.total()
            for character, count in counts.items():
                shares[character] += count / total
    visible = (character for character in shares if not character.isspace())
    ranked = sorted(visible, key=lambda character: (-shares[character], character))
    return "".join(ranked[:N_FOREIGN_CHARACTERS])


def train(demo: Path, vocabulary_size: int) -> bytes:
    """The serialized SentencePiece model."""
    treebanks = read_treebank_sentences(demo)
    corpus = read_corpus(demo)
    ascii_characters = string.digits + string.ascii_letters + string.punctuation
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iterate_training_lines(treebanks, corpus),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocabulary_size,
        normalization_rule_name=NORMALIZATION,
        character_coverage=0.9995,
        required_chars=ascii_characters + pick_foreign_characters(corpus, set(treebanks) - UNSPACED_LANGUAGES),
        pretokenization_delimiter=WORD_BOUNDARY,
        **TRAINING,
    )
    return model.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Trains the demo's vocabulary.")
    parser.add_argument("--demo", type=Path, default=Path(__file__).parent, help="folder with treebanks/ and corpus/")
    parser.add_argument("--vocabulary-size", type=int, default=12_000)
    arguments = parser.parse_args()
    path = arguments.demo / "model/sentencepiece.model"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(train(arguments.demo, arguments.vocabulary_size))
    print(f"{path}: {arguments.vocabulary_size} pieces, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
