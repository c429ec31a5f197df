"""Trains the small SentencePiece vocabulary that the models beside the tagger share, a copy in each of their folders.

    python demo/small_vocabulary.py [--demo demo] [--vocabulary-size 4000]

Layout as in `vocabulary.py`. The normalization has NFKC's rules for the characters of the demo's texts and for
full-width forms only: the whole table would be three times as large as all else. This file must not read held-back
sentences.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
from sentences import LANGUAGES, Sentence, read_sentences
from vocabulary import TRAINING

MODELS = ("classify", "answer", "fill_mask", "choose", "generate")
CHARACTERS_PER_LANGUAGE = 80_000
# Of all characters: what is left out is rare Chinese and Japanese ones.
COVERAGE = 0.992
BLANKS = "\t\n\r\u00a0\u2002\u2003\u2009\u202f\u3000"
IGNORED = "\u00ad\u200b\u200c\u200e\u200f\ufeff"
RULES = "rules.tsv"
FULL_WIDTH = range(0xFF01, 0xFFEF)


def iterate_lines(sentences: list[Sentence]) -> Iterator[str]:
    """Sentences that are not held back, about as many characters of each language."""
    room = Counter(dict.fromkeys(LANGUAGES, CHARACTERS_PER_LANGUAGE))
    # Treebanks first: a novel and the declaration would else take all the room.
    for sentence in sentences:
        if not sentence.is_held_back and room[sentence.language] > 0:
            room[sentence.language] -= len(sentence.text)
            yield sentence.text


def normalization_rules(texts: list[str]) -> str:
    """SentencePiece's table of rules: code points in, a tab, code points out."""
    seen = set("".join(texts)) | {chr(code) for code in FULL_WIDTH}
    rules = dict.fromkeys(BLANKS, " ") | dict.fromkeys(IGNORED, "")
    for character in seen:
        for form in (character, unicodedata.normalize("NFD", character)):
            normal = unicodedata.normalize("NFKC", form)
            if normal != form:
                rules.setdefault(form, normal)
    lines = (
        " ".join(f"{ord(c):X}" for c in before) + "\t" + " ".join(f"{ord(c):X}" for c in after)
        for before, after in sorted(rules.items())
    )
    return "\n".join(lines) + "\n"


def train(demo: Path, vocabulary_size: int) -> bytes:
    """The serialized SentencePiece model."""
    lines = list(iterate_lines(read_sentences(demo)))
    model = io.BytesIO()
    # SentencePiece writes the name of the table into the model: one that is the same each time.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(RULES).write_text(normalization_rules(lines), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary_size,
            normalization_rule_tsv=RULES,
            character_coverage=COVERAGE,
            **TRAINING,
        )
    return model.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Trains the vocabulary of the demo's smaller models.")
    parser.add_argument("--demo", type=Path, default=Path(__file__).parent, help="folder with treebanks/ and corpus/")
    parser.add_argument("--vocabulary-size", type=int, default=4000)
    arguments = parser.parse_args()
    content = train(arguments.demo, arguments.vocabulary_size)
    for name in MODELS:
        path = arguments.demo / name / "sentencepiece.model"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path}: {arguments.vocabulary_size} pieces, {len(content)} bytes")


if __name__ == "__main__":
    main()
