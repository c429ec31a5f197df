"""Everything below a folder is listed, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from rembert_ray.errors import StorageError
from rembert_ray.storage import s3
from rembert_ray.storage.below import names_below
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.put import put_new

NAMES = [".hidden", "_SUCCESS", "a b/é+%41.parquet", "a b/.x/y", "k=v/part", "z"]


def test_hidden_and_odd_names_are_there(store: Location) -> None:
    assert names_below(store) == []
    for name in NAMES:
        put_new(store.child(name), b"")
    put_new(store.parent.child("folder2"), b"")
    assert names_below(store) == sorted(NAMES)
    assert names_below(store.child("a b")) == [".x/y", "é+%41.parquet"]


def test_a_whole_bucket_and_folder_markers(s3_folder: Location) -> None:
    put_new(s3_folder.child("x"), b"")
    bucket = s3_folder.parent
    for key, data in (("folder/", b""), ("folder/odd/", b"not empty"), ("/root", b"")):
        s3.call("put_object", f"{bucket.path}/{key}", Body=data)
    assert names_below(bucket) == ["/root", "folder/odd/", "folder/x"]
    assert names_below(s3_folder) == ["odd/", "x"]


def test_memory_and_links(tmp_path: Path) -> None:
    folder = locate("memory://below")
    for name in NAMES:
        put_new(folder.child(name), b"")
    assert names_below(folder) == sorted(NAMES)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert names_below(locate(str(tmp_path))) == ["dangling", "loop"]


def test_a_bucket_that_is_not_there_is_an_error(s3_server: object) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        names_below(locate("s3://no-such-bucket-here/out"))
