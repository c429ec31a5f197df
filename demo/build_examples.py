"""Makes the small corpora of the tasks beside tagging, `corpus_<task>/*.parquet`.

    python demo/build_examples.py SOURCE_FOLDER [--output demo]

Run it only to change the demo: the files that it makes are in the repository. SOURCE_FOLDER is that of
`build_corpus.py`, and in it also

    multiple_choice/xcopa/val.<language>.jsonl      cambridgeltl/xcopa: premise, choice1, choice2, question, label

`corpus_fill_mask` and `corpus_generate` are made from the held-back sentences of the demo itself, so that no model
has seen them; the words that are hidden are single pieces of the vocabulary in `fill_mask/` (`small_vocabulary.py`).
The same folder gives the same bytes (with the same pyarrow). Each source keeps a file of its own, because the
licences differ. This file must not clean or shorten a text, but for what it hides or asks to continue.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from build_corpus import ZSTD_LEVEL, read_json_lines
from sentences import LANGUAGES, UNSPACED, Masker, Sentence, pick_words, read_sentences

from rembert_ray.tokenizers.rembert import RemBertTokenizer

Rows = list[dict[str, Any]]

XQUAD_LANGUAGES = ("en", "de", "zh", "ar")
QUESTIONS_PER_LANGUAGE = 60
MASKED_PER_LANGUAGE = 32
PROMPTS_PER_LANGUAGE = 10
# Characters of a sentence, and of a prompt without spaces; a Chinese or Japanese one says as much as three others.
MIN_CHARACTERS, MAX_CHARACTERS, PROMPT_CHARACTERS = 40, 200, 6
UNSPACED_DENSITY = 3
PROMPT_WORDS = 4
# The data set says which of the two is asked; as words a model can read it.
CAUSE_AND_EFFECT = {
    "it": (" Qual è stata la causa?", " Che cosa è successo di conseguenza?"),
    "sw": (" Sababu ilikuwa nini?", " Matokeo yake yalikuwa nini?"),
    "tr": (" Bunun sebebi neydi?", " Bunun sonucunda ne oldu?"),
    "zh": ("原因是什么？", "结果是什么？"),
}
STRINGS = pa.list_(pa.string())
SCHEMAS = {
    "answer": {
        "id": pa.string(),
        "language": pa.string(),
        "question": pa.string(),
        "context": pa.string(),
        "answers": STRINGS,
    },
    "choose": {
        "id": pa.string(),
        "language": pa.string(),
        "prompt": pa.string(),
        "choices": STRINGS,
        "label": pa.int32(),
    },
    "fill_mask": {
        "id": pa.string(),
        "language": pa.string(),
        "text": pa.string(),
        "answers": STRINGS,
        "source": pa.string(),
    },
    "generate": {"id": pa.string(), "language": pa.string(), "prompt": pa.string(), "source": pa.string()},
}


def read_questions(source: Path) -> Iterator[dict[str, Any]]:
    """XQuAD: the same questions in each language, the first of every fourth paragraph."""
    for language in XQUAD_LANGUAGES:
        articles = json.loads((source / f"qa/xquad/xquad.{language}.json").read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        step = len(paragraphs) // QUESTIONS_PER_LANGUAGE
        for paragraph in paragraphs[::step][:QUESTIONS_PER_LANGUAGE]:
            question = paragraph["qas"][0]
            yield {
                "id": f"{language}-{question['id']}",
                "language": language,
                "question": question["question"],
                "context": paragraph["context"],
                "answers": [answer["text"] for answer in question["answers"]],
            }


def read_choices(source: Path) -> Iterator[dict[str, Any]]:
    """XCOPA's validation set in some of its languages."""
    for language, (cause, effect) in CAUSE_AND_EFFECT.items():
        for row in read_json_lines(source / f"multiple_choice/xcopa/val.{language}.jsonl"):
            yield {
                "id": f"{language}-{row['idx']}",
                "language": language,
                "prompt": row["premise"] + {"cause": cause, "effect": effect}[row["question"]],
                "choices": [row["choice1"], row["choice2"]],
                "label": row["label"],
            }


def pick_sentences(demo: Path, n_per_language: int, random: np.random.Generator) -> list[Sentence]:
    """Held-back sentences of a handy length, as many of each language."""
    by_language: dict[str, list[Sentence]] = {language: [] for language in LANGUAGES}
    for sentence in read_sentences(demo):
        n_characters = len(sentence.text) * (UNSPACED_DENSITY if sentence.language in UNSPACED else 1)
        if sentence.is_held_back and MIN_CHARACTERS <= n_characters <= MAX_CHARACTERS:
            by_language[sentence.language].append(sentence)
    picked = []
    for sentences in by_language.values():
        chosen = random.choice(len(sentences), min(n_per_language, len(sentences)), replace=False)
        picked += [sentences[index] for index in sorted(chosen)]
    return picked


def hide_words(demo: Path) -> Iterator[dict[str, Any]]:
    """Sentences with one hidden word, or two in every third."""
    random = np.random.default_rng(0)
    masker = Masker(RemBertTokenizer.from_pretrained(str(demo / "fill_mask")))
    sentences = pick_sentences(demo, MASKED_PER_LANGUAGE, random)
    pieces = masker.pieces([s.text for s in sentences], [s.language for s in sentences])
    for index, (sentence, row) in enumerate(zip(sentences, pieces, strict=True)):
        words = pick_words(row, 2 if index % 3 == 0 else 1, random)
        if words:
            yield {
                "id": sentence.id,
                "language": sentence.language,
                "text": masker.hide(sentence.text, words),
                "answers": [sentence.text[word.start : word.end] for word in words],
                "source": sentence.source,
            }


def begin_sentences(demo: Path) -> Iterator[dict[str, Any]]:
    """The first words of sentences, or the first characters where there are no spaces."""
    for sentence in pick_sentences(demo, PROMPTS_PER_LANGUAGE, np.random.default_rng(1)):
        is_unspaced = sentence.language in UNSPACED
        first = sentence.text[:PROMPT_CHARACTERS] if is_unspaced else " ".join(sentence.text.split()[:PROMPT_WORDS])
        yield {"id": sentence.id, "language": sentence.language, "prompt": first, "source": sentence.source}


def split_by_source(rows: Iterator[dict[str, Any]]) -> dict[str, Rows]:
    """File name -> rows: one of all treebanks, and one of each other source."""
    files: defaultdict[str, Rows] = defaultdict(list)
    for row in rows:
        files[{"Tatoeba": "tatoeba", "SIB-200": "sib200", "XQuAD": "xquad"}.get(row["source"], "treebank")].append(row)
    return {f"{name}_sentences": rows for name, rows in files.items()}


def build(source: Path, output: Path) -> list[Path]:
    """Writes all files under `output`; returns their paths."""
    corpora = {
        "answer": {"xquad_questions": list(read_questions(source))},
        "choose": {"xcopa_validation": list(read_choices(source))},
        "fill_mask": split_by_source(hide_words(output)),
        "generate": split_by_source(begin_sentences(output)),
    }
    paths = []
    for task, files in corpora.items():
        for name, rows in files.items():
            path = output / f"corpus_{task}/{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(rows, schema=pa.schema(SCHEMAS[task]))
            pq.write_table(table, path, compression="zstd", compression_level=ZSTD_LEVEL)
            paths.append(path)
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Makes the demo's corpora for the tasks beside tagging.")
    parser.add_argument("source", type=Path, help="folder of the public texts, laid out as the docstring says")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="the demo's folder")
    arguments = parser.parse_args()
    for path in build(arguments.source, arguments.output):
        print(f"{path}: {pq.read_metadata(path).num_rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
