"""Makes the demo's data, `treebanks/treebanks.parquet` and `corpus/*.parquet`, from a folder of public texts.

    python demo/build_corpus.py SOURCE_FOLDER [--output demo]

Run it only to change the demo: the files that it makes are in the repository. SOURCE_FOLDER holds, from
public GitHub repositories (commits, licences and credits are in `demo/NOTICE.md`):

    token_cls/ud/<treebank>.test.jsonl      UniversalDependencies/UD_*: the first 500 sentences of each test
                                            file, one JSON object a line: id, text, tokens, upos, space_after
    retrieval/tatoeba_bitext.jsonl          facebookresearch/LASER, data/tatoeba: lang, i, src, eng
    qa/xquad/xquad.<language>.json          google-deepmind/xquad
    seq_cls/sib200/<language>.<split>.tsv   dadelani/sib-200: index_id, category, text
    corpora/udhr.jsonl                      eric-muller/udhr: code, bcp47, script, text (a paragraph a line)
    corpora/long/botchan.en.txt             google/sentencepiece, data/botchan.txt, no Gutenberg header

The same folder gives the same bytes (with the same pyarrow). Each source keeps a file of its own, because the
licences differ. This file must not clean or shorten a text: they are there to be real.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HELD_BACK_EVERY = 10
# The slowest levels cost a second here, once, and every clone of the repository gains.
ZSTD_LEVEL = 19

TREEBANK_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("treebank", pa.string()),
        ("licence", pa.string()),
        ("text", pa.string()),
        ("starts", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.int32())),
        ("upos", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)
CORPUS_SCHEMA = pa.schema(
    [("id", pa.string()), ("language", pa.string()), ("text", pa.string()), ("source", pa.string())]
)


@dataclass(frozen=True)
class Treebank:
    """One Universal Dependencies treebank: its short name, its repository, language tag and licence."""

    name: str
    repository: str
    language_tag: str
    licence: str = "CC-BY-SA-3.0"

    @property
    def language(self) -> str:
        """The ISO 639-1 code, `zh` of `zh-Hant`."""
        return self.language_tag.partition("-")[0]


TREEBANKS = (
    Treebank("ar_pud", "UD_Arabic-PUD", "ar-Arab"),
    Treebank("de_pud", "UD_German-PUD", "de-Latn"),
    Treebank("en_ewt", "UD_English-EWT", "en-Latn", "CC-BY-SA-4.0"),
    Treebank("en_pud", "UD_English-PUD", "en-Latn"),
    Treebank("es_pud", "UD_Spanish-PUD", "es-Latn"),
    Treebank("fr_pud", "UD_French-PUD", "fr-Latn"),
    Treebank("hi_pud", "UD_Hindi-PUD", "hi-Deva"),
    Treebank("ja_gsd", "UD_Japanese-GSD", "ja-Jpan", "CC-BY-SA-4.0"),
    Treebank("ru_pud", "UD_Russian-PUD", "ru-Cyrl"),
    Treebank("tr_pud", "UD_Turkish-PUD", "tr-Latn"),
    Treebank("zh_pud", "UD_Chinese-PUD", "zh-Hant"),
)
TATOEBA_LANGUAGES = {"ara": "ar-Arab", "deu": "de-Latn", "jpn": "ja-Jpan", "rus": "ru-Cyrl"}
TATOEBA_PER_LANGUAGE = 500
XQUAD_LANGUAGES = {"ar": "ar-Arab", "de": "de-Latn", "en": "en-Latn", "zh": "zh-Hans"}
SIB200_LANGUAGES = {
    "arb_Arab": "ar-Arab",
    "eng_Latn": "en-Latn",
    "swh_Latn": "sw-Latn",
    "zho_Hans": "zh-Hans",
}
# One translation at least for each of the 40 scripts in the source, and the treebanks' languages first.
UDHR_CODES = (
    *("arb", "cmn_hans", "cmn_hant", "deu_1996", "eng", "fra", "hin", "jpn", "rus", "spa", "tur"),
    *(
        "026",
        "aii",
        "amh",
        "ben",
        "blt",
        "bod",
        "ccp",
        "chr_cased",
        "csw",
        "div",
        "ell_monotonic",
        "fuf_adlm",
    ),
    *("guj", "heb", "hye", "iii", "jav_java", "kan", "kat", "khm", "kkh_lana", "kor", "lao", "mal_chillus"),
    *("mya", "pan", "san_gran", "sin", "tam", "tel", "tha", "vai", "vie_han", "zgh"),
    *("ces", "fin", "ind", "pes_1", "pol", "swh", "ukr", "urd", "vie"),
)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All objects of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def find_token_spans(text: str, tokens: Sequence[str], space_after: Sequence[int]) -> tuple[list[int], list[int]]:
    """Starts and ends of the tokens in `text`, in characters; ValueError when they do not spell `text`."""
    starts, ends, position = [], [], 0
    for token, has_space in zip(tokens, space_after, strict=True):
        if not text.startswith(token, position):
            raise ValueError(f"token {token!r} is not at character {position} of {text!r}")
        starts.append(position)
        position += len(token)
        ends.append(position)
        if has_space and position < len(text):
            if text[position] != " ":
                raise ValueError(f"no space after {token!r} at character {position} of {text!r}")
            position += 1
    if position != len(text):
        raise ValueError(f"the tokens end at character {position} of {len(text)}: {text!r}")
    return starts, ends


def read_treebanks(source: Path) -> list[dict[str, Any]]:
    """Rows of TREEBANK_SCHEMA, treebank after treebank.

    Every tenth sentence is held back. The PUD treebanks hold the same sentences in each language under the
    same ids, so ids are held back, not rows: no translation of a held-back sentence is in training.
    A sentence with the very words of a held-back one is held back with it.
    """
    sentences = {bank: read_json_lines(source / f"token_cls/ud/{bank.name}.test.jsonl") for bank in TREEBANKS}
    held_ids = {row["id"] for rows in sentences.values() for row in rows[HELD_BACK_EVERY - 1 :: HELD_BACK_EVERY]}
    held_texts = {row["text"] for rows in sentences.values() for row in rows if row["id"] in held_ids}
    result = []
    for bank, rows in sentences.items():
        for row in rows:
            starts, ends = find_token_spans(row["text"], row["tokens"], row["space_after"])
            is_held_back = row["id"] in held_ids or row["text"] in held_texts
            result.append(
                {
                    "id": row["id"],
                    "language": bank.language,
                    "treebank": bank.name,
                    "licence": bank.licence,
                    "text": row["text"],
                    "starts": starts,
                    "ends": ends,
                    "upos": row["upos"],
                    "split": "heldout" if is_held_back else "train",
                }
            )
    return result


def corpus_row(row_id: str, language: str, text: str, source: str) -> dict[str, str]:
    """One row of CORPUS_SCHEMA."""
    return {"id": row_id, "language": language, "text": text, "source": source}


def pick_held_back(treebank_rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The held-back treebank sentences, so that a person can judge the tagger on text that it never saw."""
    banks = {bank.name: bank for bank in TREEBANKS}
    for row in treebank_rows:
        if row["split"] == "heldout":
            bank = banks[row["treebank"]]
            yield corpus_row(f"{bank.name}/{row['id']}", bank.language_tag, row["text"], bank.repository)


def read_tatoeba(source: Path) -> Iterator[dict[str, str]]:
    """500 sentences of each language, and the English of 125 others of each."""
    n_english = TATOEBA_PER_LANGUAGE // len(TATOEBA_LANGUAGES)
    for row in read_json_lines(source / "retrieval/tatoeba_bitext.jsonl"):
        row_id = f"tatoeba/{row['lang']}-{row['i']}"
        if row["i"] < TATOEBA_PER_LANGUAGE:
            yield corpus_row(row_id, TATOEBA_LANGUAGES[row["lang"]], row["src"], "Tatoeba")
        elif row["i"] < TATOEBA_PER_LANGUAGE + n_english:
            yield corpus_row(f"{row_id}-eng", "en-Latn", row["eng"], "Tatoeba")


def read_xquad(source: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of XQuAD, each once."""
    for code, language in XQUAD_LANGUAGES.items():
        articles = json.loads((source / f"qa/xquad/xquad.{code}.json").read_text(encoding="utf-8"))["data"]
        contexts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
        for index, context in enumerate(dict.fromkeys(contexts)):
            yield corpus_row(f"xquad/{code}-{index}", language, context, "XQuAD")


def read_sib200(source: Path) -> Iterator[dict[str, str]]:
    """The FLORES-200 sentences of SIB-200, training and development files."""
    for code, language in SIB200_LANGUAGES.items():
        for split in ("train", "dev"):
            with (source / f"seq_cls/sib200/{code}.{split}.tsv").open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                    yield corpus_row(f"sib200/{code}-{row['index_id']}", language, row["text"], "SIB-200")


def language_with_script(tag: str, script: str) -> str:
    """`ta-LK`, `Taml` -> `ta-Taml-LK`: the script comes second, before region and variant (RFC 5646)."""
    language, *rest = tag.split("-")
    return "-".join([language, script, *(part for part in rest if part != script)])


def read_udhr(source: Path) -> Iterator[dict[str, str]]:
    """The Universal Declaration of Human Rights, one document per translation, in the order of UDHR_CODES."""
    documents = {row["code"]: row for row in read_json_lines(source / "corpora/udhr.jsonl")}
    for code in UDHR_CODES:
        row = documents[code]
        yield corpus_row(f"udhr/{code}", language_with_script(row["bcp47"], row["script"]), row["text"], "UDHR")


def read_botchan(source: Path) -> Iterator[dict[str, str]]:
    """A whole novel as one document."""
    text = (source / "corpora/long/botchan.en.txt").read_text(encoding="utf-8")
    yield corpus_row("botchan/en", "en-Latn", text, "Botchan")


def write_treebanks(rows: list[dict[str, Any]], path: Path) -> None:
    """One row group per treebank; offsets grow, so they are stored as differences."""
    table = pa.Table.from_pylist(rows, schema=TREEBANK_SCHEMA)
    offsets = ("starts.list.element", "ends.list.element")
    pq.write_table(
        table,
        path,
        row_group_size=len(rows) // len(TREEBANKS),
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["language", "treebank", "licence", "upos.list.element", "split"],
        column_encoding=dict.fromkeys(offsets, "DELTA_BINARY_PACKED"),
    )


def write_corpus(rows: Iterable[dict[str, str]], path: Path, rows_per_group: int) -> None:
    """One source as one file of several row groups, so that a plan cuts it into several shards."""
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=CORPUS_SCHEMA),
        path,
        row_group_size=rows_per_group,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=["language", "source"],
    )


def build(source: Path, output: Path) -> list[Path]:
    """Writes all files under `output`; returns their paths."""
    treebank_rows = read_treebanks(source)
    treebanks = output / "treebanks/treebanks.parquet"
    treebanks.parent.mkdir(parents=True, exist_ok=True)
    write_treebanks(treebank_rows, treebanks)
    corpus = {
        "treebank_sentences": (pick_held_back(treebank_rows), 200),
        "tatoeba_sentences": (read_tatoeba(source), 500),
        "sib200_sentences": (read_sib200(source), 800),
        "xquad_paragraphs": (read_xquad(source), 240),
        "udhr_documents": (read_udhr(source), 8),
        "botchan_document": (read_botchan(source), 1),
    }
    paths = [treebanks]
    for name, (rows, rows_per_group) in corpus.items():
        path = output / f"corpus/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(rows, path, rows_per_group)
        paths.append(path)
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Makes the demo's treebanks and corpus.")
    parser.add_argument("source", type=Path, help="folder of the public texts, laid out as the docstring says")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    for path in build(arguments.source, arguments.output):
        metadata = pq.read_metadata(path)
        n_bytes = path.stat().st_size
        print(f"{path}: {metadata.num_rows} rows, {metadata.num_row_groups} row groups, {n_bytes} bytes")


if __name__ == "__main__":
    main()
