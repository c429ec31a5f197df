"""What a corpus offers a task: guesses by names, types and sizes; paths as a manifest shall name them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.manifest import resolve_path
from rembert_ray.starter.corpus import guess_columns, guess_kept, look_at_corpus, written_path
from rembert_ray.storage.location import Location, locate
from rembert_ray.tasks.base import find_task

LONG = ["a long text, " * 50]
SHORT = ["short"]
NUMBER = [1]
WORDS = [["a", "b"]]


def corpus_of(folder: Path, columns: dict[str, list[object]], below: str = "") -> str:
    path = folder / "corpus" / below / "x.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(folder / "corpus")


@pytest.mark.parametrize(
    ("task", "columns", "expected"),
    [
        ("tag", {"title": LONG, "text": SHORT}, {"text": "text"}),
        ("tag", {"x": LONG, "Body": SHORT, "url": LONG}, {"text": "Body"}),
        ("tag", {"article_body": SHORT, "x": LONG}, {"text": "article_body"}),
        ("tag", {"x": SHORT, "y": LONG, "page_url": LONG}, {"text": "y"}),
        ("tag", {"n": NUMBER, "words": WORDS}, {"words": "words"}),
        ("classify", {"pair": LONG, "sentence": SHORT}, {"text": "sentence"}),
        ("answer", {"passage": LONG, "query": SHORT}, {"question": "query", "context": "passage"}),
        ("answer", {"text": LONG, "question": SHORT}, {"question": "question", "context": "text"}),
        ("choose", {"premise": LONG, "options": WORDS}, {"prompt": "premise", "choices": "options"}),
        ("generate", {"x": LONG, "y": SHORT}, {"prompt": "x"}),
    ],
)
def test_columns_are_guessed(task: str, columns: dict[str, list[object]], expected: object, tmp_path: Path) -> None:
    corpus = look_at_corpus(corpus_of(tmp_path, columns))
    assert guess_columns(corpus, find_task(task).input_forms, {}) == expected


def test_what_cannot_be_guessed_is_asked_for_by_name(tmp_path: Path) -> None:
    corpus = look_at_corpus(corpus_of(tmp_path, {"left": LONG, "right": LONG, "n": NUMBER}))
    forms = find_task("answer").input_forms
    with pytest.raises(UnusableError) as caught:
        guess_columns(corpus, forms, {})
    assert [fault.what for fault in caught.value.faults] == [
        "no column can be told to be 'question'",
        "no column can be told to be 'context'",
    ]
    assert caught.value.faults[0].fix == "known: left, right"
    given = {"question": "left", "context": "right"}
    assert guess_columns(corpus, forms, given) == given
    with pytest.raises(UnusableError, match="'n' is no column for 'question'"):
        guess_columns(corpus, forms, {"question": "n"})
    with pytest.raises(UnusableError, match=r"reads no column 'questoin' \(did you mean 'question'\?\)"):
        guess_columns(corpus, forms, {"questoin": "left"})


def test_ids_languages_and_hive_keys_are_kept_but_nothing_that_the_output_has_anyway(tmp_path: Path) -> None:
    columns = {"doc_id": SHORT, "text": LONG, "lang": SHORT, "score": NUMBER, "url": WORDS, "notes": SHORT}
    corpus = look_at_corpus(corpus_of(tmp_path, columns, "day=2026-11-21/label=x"))
    assert corpus.partitions == ("day", "label")
    assert guess_kept(corpus, ["text", "label"]) == ["doc_id", "lang", "day"]


def test_a_damaged_footer_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + b"\xff" * 50 + b"PAR1")
    with pytest.raises(UnusableError, match=r"x\.parquet: its footer cannot be used"):
        look_at_corpus(str(tmp_path))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/a/b/c/x", "c/x"),
        ("/a/b", "."),
        ("/a/bc/x", "/a/bc/x"),
        ("/a/b/~x", "/a/b/~x"),
        ("/a/b/c/*.parquet", "c/*.parquet"),
        ("file:///a/b/c", "c"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_paths_below_the_manifest_are_relative_and_mean_the_same_place(place: str, expected: str) -> None:
    assert written_path(place, Location("/a/b")) == expected
    assert locate(resolve_path(expected, "/a/b")) == locate(place)
