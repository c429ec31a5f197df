"""The fingerprint: equal for equal results, different and readable for everything that changes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.errors import UnusableError
from rembert_ray.fingerprint import (
    ABSENT,
    Difference,
    Fingerprint,
    difference,
    digest_files,
    digest_model,
    digest_tokenizer,
    make_fingerprint,
)
from rembert_ray.storage.location import Location, locate

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(["task", "head.a", "head.b", "keep", "format"]), JSON_VALUES)

JOB: dict[str, Any] = {
    "model_digest": "a" * 64,
    "tokenizer_digest": "b" * 64,
    "task": "tag",
    "head": {"aggregation": "simple", "labels": ("A", "B")},
    "precision": "float32",
    "text": {"max_tokens": None, "overlap": 64},
    "columns": {"text": "body"},
    "keep": ("id", "language"),
    "sharding": {"rows": 10, "bytes": 20},
}
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model_digest": "c" * 64}),
    ("tokenizer", {"tokenizer_digest": "c" * 64}),
    ("task", {"task": "embed"}),
    ("head.aggregation", {"head": {**JOB["head"], "aggregation": "first"}}),
    ("precision", {"precision": "bfloat16"}),
    ("text.max_tokens", {"text": {"max_tokens": 128, "overlap": 64}}),
    ("columns.text", {"columns": {"text": "title"}}),
    ("keep", {"keep": ("language", "id")}),
    ("sharding.rows", {"sharding": {"rows": 11, "bytes": 20}}),
]


@pytest.fixture
def model(tmp_path: Path) -> Location:
    files = {
        "config.json": "{}",
        "model-00001-of-00002.safetensors": "weights 1",
        "model-00002-of-00002.safetensors": "weights 2",
        "model.safetensors.index.json": "{}",
        "sentencepiece.model": "pieces",
        "tokenizer_config.json": "{}",
        "README.md": "about",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return locate(str(tmp_path))


def test_fields_are_flat_and_complete() -> None:
    assert make_fingerprint(**JOB).fields == {
        "format": 1,
        "model": "a" * 64,
        "tokenizer": "b" * 64,
        "task": "tag",
        "precision": "float32",
        "keep": ["id", "language"],
        "head.aggregation": "simple",
        "head.labels": ["A", "B"],
        "text.max_tokens": None,
        "text.overlap": 64,
        "columns.text": "body",
        "sharding.rows": 10,
        "sharding.bytes": 20,
    }


@pytest.mark.parametrize(("key", "change"), CHANGES, ids=[key for key, _ in CHANGES])
def test_each_change_is_seen_and_named(key: str, change: dict[str, Any]) -> None:
    old, new = make_fingerprint(**JOB), make_fingerprint(**{**JOB, **change})
    assert old.digest != new.digest
    assert [found.key for found in difference(old, new)] == [key]


@settings(deadline=None)
@given(FIELDS, FIELDS)
def test_digests_are_equal_exactly_when_nothing_differs(a: dict[str, Any], b: dict[str, Any]) -> None:
    old, new = Fingerprint(a), Fingerprint(b)
    assert (old.digest == new.digest) == (not difference(old, new))
    assert Fingerprint(dict(reversed(a.items()))).digest == old.digest
    assert len(old.digest) == 12
    assert int(old.digest, 16) >= 0


def test_difference_reads_side_by_side() -> None:
    old = Fingerprint({"head.top_k": 5, "model": "a" * 64, "text.max_tokens": None, "n": 1})
    new = Fingerprint({"head.targets": ["x"], "model": "b" * 64, "text.max_tokens": None, "n": True})
    assert [str(found) for found in difference(old, new)] == [
        "head.targets: (not there) -> ['x']",
        "head.top_k: 5 -> (not there)",
        "model: aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "n: 1 -> True",
    ]
    assert difference(Fingerprint({}), Fingerprint({"a": None})) == [Difference("a", ABSENT, None)]


def test_no_number_is_left_to_chance() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Fingerprint({"head.temperature": float("nan")})


def test_digest_can_be_checked_by_hand(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two" * 5_000_000)
    (tmp_path / "a").write_bytes(b"")
    lines = "".join(f"{hashlib.sha256((tmp_path / n).read_bytes()).hexdigest()}  {n}\n" for n in "ab")
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert digest_files(locate(str(tmp_path)), ["b", "a"]) == expected
    assert digest_files(locate(str(tmp_path)), ["a", "b", "a"]) == expected


def test_digest_is_the_same_on_another_filesystem(tmp_path: Path) -> None:
    remote = locate("memory://test-fingerprint/model")
    (tmp_path / "config.json").write_bytes(b"{}" * 9_000_000)
    remote.filesystem.pipe_file(remote.child("config.json").path, b"{}" * 9_000_000)
    assert digest_files(remote, ["config.json"]) == digest_files(locate(str(tmp_path)), ["config.json"])


@pytest.mark.parametrize(
    ("name", "changes_model", "changes_tokenizer"),
    [
        ("config.json", True, False),
        ("generation_config.json", True, False),
        ("model-00002-of-00002.safetensors", True, False),
        ("model.safetensors.index.json", True, False),
        ("sentencepiece.model", False, True),
        ("special_tokens_map.json", False, True),
        ("README.md", False, False),
    ],
)
def test_what_a_file_changes(model: Location, name: str, changes_model: bool, changes_tokenizer: bool) -> None:
    before = digest_model(model), digest_tokenizer(model)
    Path(model.child(name).path).write_text("changed")
    assert (digest_model(model) != before[0]) is changes_model
    assert (digest_tokenizer(model) != before[1]) is changes_tokenizer


def test_renamed_weights_are_other_weights(model: Location) -> None:
    before = digest_model(model)
    Path(model.child("model-00002-of-00002.safetensors").path).rename(model.child("other.safetensors").path)
    assert digest_model(model) != before


def test_incomplete_model_is_refused(model: Location) -> None:
    Path(model.child("config.json").path).unlink()
    with pytest.raises(UnusableError, match=r"no config\.json"):
        digest_model(model)
    Path(model.child("config.json").path).write_text("{}")
    for path in Path(model.path).glob("*.safetensors"):
        path.unlink()
    with pytest.raises(UnusableError, match=r"no \*\.safetensors"):
        digest_model(model)
    Path(model.child("sentencepiece.model").path).unlink()
    with pytest.raises(UnusableError, match="no tokenizer there"):
        digest_tokenizer(model)
    with pytest.raises(UnusableError, match=r"no config\.json"):
        digest_model(model.child("nowhere"))


def test_all_missing_files_are_named(model: Location) -> None:
    with pytest.raises(UnusableError) as caught:
        digest_files(model, ["config.json", "x", "y"])
    assert [fault.where for fault in caught.value.faults] == [f"{model}/x", f"{model}/y"]
