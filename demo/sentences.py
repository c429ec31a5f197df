"""The demo's sentences by language, for the models beside the tagger: read, held back, masked.

Used by `small_vocabulary.py`, `train_heads.py` and `build_examples.py`, which must agree on what no model may see.
This file must not change a sentence, but for the words that `Masker` hides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rembert_ray.tokenizers.rembert import RemBertTokenizer

# Those of which the corpus has hundreds of sentences; the other 40 have one document.
LANGUAGES = tuple("ar de en es fr hi ja ru sw tr zh".split())
HELD_BACK_EVERY = 10
# The declaration and the novel are one document a language: nothing of them is held back.
WHOLE = ("UDHR", "Botchan")
# Abbreviations end a sentence here, too. That is good enough for so small a model.
SENTENCE_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")
LINE_OR_SENTENCE_END = re.compile(SENTENCE_END.pattern + r"|\n")
MASK = "[MASK]"
UNSPACED = frozenset({"ja", "zh"})
# The scripts of UNSPACED languages come after it.
LAST_SPACED = "\u2e7f"
MIN_LETTERS = 3


@dataclass(frozen=True)
class Sentence:
    """A sentence and where it is from; `source` is that of the corpus, or the treebank's name."""

    id: str
    language: str
    source: str
    text: str
    is_held_back: bool


def read_sentences(demo: Path) -> list[Sentence]:
    """All sentences of `treebanks/` and `corpus/` in LANGUAGES.

    Held back are those that the tagger's training holds back, and every tenth text of each other source but WHOLE.
    Texts of XQuAD and SIB-200 are held back with their translations.
    """
    found = []
    for row in pq.read_table(demo / "treebanks/treebanks.parquet").to_pylist():
        row_id = f"{row['treebank']}/{row['id']}"
        found.append(Sentence(row_id, row["language"], row["treebank"], row["text"], row["split"] == "heldout"))
    for path in sorted((demo / "corpus").glob("*.parquet")):
        if path.name == "treebank_sentences.parquet":
            continue
        for row in pq.read_table(path).to_pylist():
            language = row["language"].partition("-")[0]
            if language not in LANGUAGES:
                continue
            number = re.search(r"-(\d+)", row["id"])
            is_held_back = row["source"] not in WHOLE and int(number[1]) % HELD_BACK_EVERY == HELD_BACK_EVERY - 1
            # The lines of the novel are those of a printed page.
            pattern = SENTENCE_END if row["source"] == "Botchan" else LINE_OR_SENTENCE_END
            texts = (text.strip() for text in pattern.split(row["text"]) if any(map(str.isalpha, text)))
            for index, text in enumerate(texts):
                found.append(Sentence(f"{row['id']}#{index}", language, row["source"], text, is_held_back))
    held_back = {sentence.text for sentence in found if sentence.is_held_back}
    return [s for s in found if s.is_held_back or s.text not in held_back]


@dataclass(frozen=True)
class Piece:
    """A piece of a text: its id, and its characters without white space."""

    id: int
    start: int
    end: int
    is_word: bool
    """Whether it is a whole word of letters; in UNSPACED languages, any piece of their letters."""


class Masker:
    """Hides pieces of texts behind [MASK] as a person would write it, so that models meet in training what they meet
    in a job: a lonely word marker behind a mask within a word, for one."""

    def __init__(self, tokenizer: RemBertTokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        self.opens_word = [piece.startswith("▁") for piece in vocabulary]
        self.letters = [sum(map(str.isalpha, piece)) == len(piece.lstrip("▁")) for piece in vocabulary]

    def pieces(self, texts: list[str], languages: Iterable[str]) -> list[list[Piece]]:
        """The known pieces of each text that have characters of their own."""
        encoding = self.tokenizer.encode_batch(texts, add_special_tokens=False, with_offsets=True)
        rows = []
        for row, (text, language) in enumerate(zip(texts, languages, strict=True)):
            one = slice(encoding.row_splits[row], encoding.row_splits[row + 1])
            ids, offsets = encoding.ids[one].tolist(), encoding.offsets[one].tolist()
            pieces, last_end = [], 0
            for index, (piece_id, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
                start = end - len(text[start:end].lstrip())
                if start >= max(end, last_end) or start < last_end or piece_id == self.tokenizer.unk_token_id:
                    continue
                last_end = end
                closes = index + 1 == len(ids) or self._ends_before(ids[index + 1], text, end)
                is_whole = self.opens_word[piece_id] and closes and end - start >= MIN_LETTERS
                is_character = language in UNSPACED and text[start] > LAST_SPACED
                is_word = self.letters[piece_id] and (is_whole or is_character)
                pieces.append(Piece(piece_id, start, end, is_word))
            rows.append(pieces)
        return rows

    def _ends_before(self, next_id: int, text: str, end: int) -> bool:
        # A combining mark is no letter, but a part of the word.
        return self.opens_word[next_id] or unicodedata.category(text[end])[0] in "PZS"

    @staticmethod
    def hide(text: str, pieces: list[Piece]) -> str:
        """`text` with [MASK] in the place of each piece, given in order."""
        parts, last_end = [], 0
        for piece in pieces:
            parts += [text[last_end : piece.start], MASK]
            last_end = piece.end
        return "".join([*parts, text[last_end:]])


def pick_words(pieces: list[Piece], n_words: int, random: np.random.Generator) -> list[Piece]:
    """`n_words` of the words that are one piece, in order; fewer where there are not as many."""
    words = [piece for piece in pieces if piece.is_word]
    chosen = random.choice(len(words), min(n_words, len(words)), replace=False) if words else []
    return [words[index] for index in sorted(chosen)]
