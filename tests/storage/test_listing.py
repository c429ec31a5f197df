"""Which files an input stands for, in which order, and what is said when there are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.errors import UnusableError
from rembert_ray.storage.filesystem import filesystem_for
from rembert_ray.storage.listing import expand_input, input_root, list_files, list_names, partition_values
from rembert_ray.storage.location import Location
from rembert_ray.storage.put import put_new, put_replacing

FILES = [
    "b.parquet",
    "a.PARQUET",
    "lang=pt%2DBR/x.parq",
    "lang=sw/deep/y.pq",
    "_year=2020/z.parquet",
    "notes.txt",
    "_SUCCESS",
    "_temporary/0.parquet",
    ".hidden.parquet",
    "lang=sw/.tmp/q.parquet",
]


@pytest.fixture
def filled(store: Location) -> Location:
    for name in FILES:
        put_new(store.child(name), name.encode())
    return store


def names(root: Location, pattern: str) -> list[str]:
    return [file.location.url.removeprefix(root.url + "/") for file in expand_input(pattern)]


def test_a_folder_is_its_parquet_files_in_order_without_hidden_ones(filled: Location) -> None:
    expected = ["_year=2020/z.parquet", "a.PARQUET", "b.parquet", "lang=pt%2DBR/x.parq", "lang=sw/deep/y.pq"]
    assert names(filled, filled.url) == expected
    assert names(filled, filled.url + "/") == expected


def test_a_listing_tells_sizes_and_depth(filled: Location) -> None:
    sizes = {file.location.name: file.size_bytes for file in list_files(filled)}
    assert sizes["notes.txt"] == len("notes.txt")
    assert sorted(file.location.name for file in list_files(filled, recursive=False)) == [
        "a.PARQUET",
        "b.parquet",
        "notes.txt",
    ]
    assert list_names(filled, "_") == ["_SUCCESS"]


def test_one_file_is_itself(filled: Location) -> None:
    assert names(filled, filled.child("b.parquet").url) == ["b.parquet"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.parquet", ["b.parquet"]),
        ("lang=*/*", ["lang=pt%2DBR/x.parq"]),
        ("lang=*/**/*.pq", ["lang=sw/deep/y.pq"]),
        ("**/*.parquet", ["_year=2020/z.parquet", "b.parquet"]),
        ("[ab].*", ["a.PARQUET", "b.parquet"]),
        ("?.parquet", ["b.parquet"]),
        ("lang=s*/deep/y.pq", ["lang=sw/deep/y.pq"]),
    ],
)
def test_globs(filled: Location, glob: str, expected: list[str]) -> None:
    assert names(filled, f"{filled.url}/{glob}") == expected


def test_the_version_tells_that_a_file_changed(store: Location) -> None:
    target = store.child("x.parquet")
    put_new(target, b"old")
    before = expand_input(store.url)
    assert expand_input(store.url) == before == expand_input(target.url)
    put_replacing(target, b"new")
    if store.is_local:
        os.utime(target.path, ns=(1, 1))
    after = expand_input(store.url)
    assert after[0].size_bytes == before[0].size_bytes
    assert after[0].version != before[0].version


def test_nothing_there_no_match_and_no_parquet_are_told_apart(filled: Location) -> None:
    with pytest.raises(UnusableError, match="nothing there"):
        expand_input(filled.child("no-such-folder").url)
    with pytest.raises(UnusableError, match="no file matches"):
        expand_input(filled.url + "/z*.parquet")
    with pytest.raises(UnusableError, match=r"1 file\(s\) there \(such as 'notes.txt'\), but no Parquet file"):
        expand_input(filled.child("notes.txt").url)


def test_what_a_store_refuses_is_said(s3_folder: Location, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableError, match=r"no such bucket .*AWS_ENDPOINT_URL"):
        expand_input("s3://no-such-bucket-here/data")
    with pytest.raises(UnusableError, match="no such bucket"):
        expand_input("s3://no-such-bucket-here/data/x.parquet")
    if s3_server.checks_secrets:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(UnusableError, match=r"credentials are refused"):
            expand_input(s3_folder.url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UnusableError, match=r"no credentials found .*AWS_PROFILE"):
        expand_input(s3_folder.url)


def test_an_endpoint_that_nobody_serves_is_said_soon(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnusableError, match=r"does not answer: EndpointConnectionError.*check AWS_ENDPOINT_URL"):
        expand_input(s3_folder.url, budget_s=0.1)


def test_a_glob_that_matches_nothing_may_be_a_name(store: Location) -> None:
    put_new(store.child("data[1].parquet"), b"")
    assert names(store, store.url + "/data[1].parquet") == ["data[1].parquet"]


def test_a_local_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.parquet")).write_bytes(b"")
    with pytest.raises(UnusableError, match="not UTF-8"):
        expand_input(str(tmp_path))


def test_folder_markers_of_web_consoles_are_no_files(s3_folder: Location) -> None:
    bucket, _, key = s3_folder.path.partition("/")
    filesystem_for("s3").call_s3("put_object", Bucket=bucket, Key=f"{key}/", Body=b"")
    put_new(s3_folder.child("x.parquet"), b"")
    assert [file.location.name for file in list_files(s3_folder)] == ["x.parquet"]


def test_keys_with_odd_characters_come_back_as_they_are(store: Location) -> None:
    odd = ["a b.parquet", "ä+&%20.parquet", "语.parquet", "x#y.parquet"]
    for name in odd:
        put_new(store.child(name), b"1")
    assert sorted(names(store, store.url)) == sorted(odd)
    # A URL with a fragment is refused, but a folder may hold such names.
    assert [len(expand_input(store.child(name).url)) for name in odd if "#" not in name] == [1] * (len(odd) - 1)


def test_links_are_followed_loops_end_and_broken_links_are_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.parquet").write_bytes(b"")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert [file.location.path for file in expand_input(str(tmp_path / "in"))] == [str(tmp_path / "in/link/x.parquet")]
    (tmp_path / "in" / "gone.parquet").symlink_to(tmp_path / "nothing")
    with pytest.raises(UnusableError, match=r"gone\.parquet: a link to nothing"):
        expand_input(str(tmp_path / "in"))


def test_a_local_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "data[1].parquet").write_bytes(b"")
    assert len(expand_input(str(tmp_path / "data[1].parquet"))) == 1


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("s3://b/data", "s3://b/data"),
        ("s3://b/data/x.parquet", "s3://b/data"),
        ("s3://b/data/lang=*/x.parquet", "s3://b/data"),
        ("s3://b/*.parquet", "s3://b"),
        ("/data/**", "/data"),
        ("/*.parquet", "/"),
    ],
)
def test_the_root_below_which_partitions_count(pattern: str, root: str) -> None:
    assert input_root(pattern).url == root


def test_partition_values_are_decoded() -> None:
    root = Location("s3://b/data")
    file = root.child("lang=pt%2DBR", "plain", "day=__HIVE_DEFAULT_PARTITION__", "a=b=c", "x=1.parquet")
    assert partition_values(root, file) == {"lang": "pt-BR", "day": None, "a": "b=c"}
    with pytest.raises(ValueError, match="not below"):
        partition_values(root.child("other"), file)


@given(st.dictionaries(st.text("abc_", min_size=1), st.text(max_size=8).filter(bool), max_size=4))
def test_partition_values_round_trip(values: dict[str, str]) -> None:
    folders = [f"{key}={quote(value, safe='')}" for key, value in values.items()]
    file = Location("/".join(["/data", *folders, "x.parquet"]))
    assert partition_values(Location("/data"), file) == values
