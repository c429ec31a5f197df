"""From what a person writes to a place in storage."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.storage.filesystem import filesystem_for
from rembert_ray.storage.location import Location, delete, exists, locate, read_bytes
from rembert_ray.storage.put import put_new


@pytest.mark.parametrize(
    ("written", "url", "path"),
    [
        ("/data/x.parquet", "/data/x.parquet", "/data/x.parquet"),
        ("/data//y/../x/", "/data/x", "/data/x"),
        ("//etc/x", "/etc/x", "/etc/x"),
        ("file:////etc/x", "/etc/x", "/etc/x"),
        ("FILE:///data/x", "/data/x", "/data/x"),
        ("s3://bucket/it's 100%/a@b/2024:01/*.parquet", "s3://bucket/it's 100%/a@b/2024:01/*.parquet", None),
        ("https://host:8080/x", "https://host:8080/x", None),
        ("file:///data/a%20b", "/data/a b", "/data/a b"),
        ("file://localhost/data", "/data", "/data"),
        ("/odd/a%20b#c?d=e", "/odd/a%20b#c?d=e", "/odd/a%20b#c?d=e"),
        ("s3://bucket/a/b/", "s3://bucket/a/b", "bucket/a/b"),
        ("s3a://bucket/a", "s3://bucket/a", "bucket/a"),
        ("S3://bucket/a", "s3://bucket/a", "bucket/a"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("memory://a/b", "memory://a/b", "/a/b"),
        ("memory:///a/b", "memory://a/b", "/a/b"),
    ],
)
def test_urls_are_normalized(written: str, url: str, path: str | None) -> None:
    location = locate(written)
    assert (str(location), location.url) == (url, url)
    assert path is None or location.path == path
    assert locate(location.url) == location


def test_relative_and_home_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert locate("data/x").url == str(tmp_path / "data" / "x")
    assert locate("~/x").url == "/home/somebody/x"


@pytest.mark.parametrize("url", ["/data/a/b", "s3://bucket/a/b", "memory://top/a/b"])
def test_child_parent_and_name_agree(url: str) -> None:
    location = locate(url)
    assert location.name == "b"
    assert location.parent.child("b") == location
    assert location.child("c", "d/e").url == f"{url}/c/d/e"
    assert pickle.loads(pickle.dumps(location)) == location


@pytest.mark.parametrize("top", ["/", "s3://bucket", "memory://top"])
def test_the_top_is_its_own_parent(top: str) -> None:
    assert locate(top).parent == locate(top)
    assert locate(top).child("x").parent == locate(top)


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a//b", "."])
def test_a_child_stays_below(name: str) -> None:
    with pytest.raises(ValueError, match="not a name below"):
        locate("/data").child(name)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("s3://KEY:SECRET@bucket/x", r"credentials inside a URL .*AWS_ACCESS_KEY_ID"),
        ("s3://bucket/x?endpoint_override=http://evil", r"options inside a URL .*AWS_ENDPOINT_URL"),
        ("https://host/x?X-Amz-Signature=SECRET", r"options inside a URL"),
        ("simplecache::s3://bucket/x", r"chained URLs"),
        ("simplecache::http://host/x", r"chained URLs"),
        ("ss3://bucket/x", r"unknown scheme 'ss3' \(did you mean 's3'"),
        ("zip://x.zip", r"unknown scheme 'zip'"),
        ("s3:/bucket/x", r"not a URL \(write s3://"),
        ("s3://", r"no bucket"),
        ("s3:///x", r"no bucket"),
        ("file://host/x", r"a file URL with a host"),
        ("  ", r"an empty path"),
        ("s3://KEY:SEC/RET@bucket/x", r"s3://\.\.\.: credentials inside a URL"),
        ("s3://KEY:SECRET/x", r"credentials inside a URL"),
        ("https://user:SECRET/word@host/x", r"credentials inside a URL"),
        ("https://user@host/x", r"credentials inside a URL"),
        ("file://user:SECRET@host/x", r"a file URL with a host"),
        ("s3://b/x?a=SECRET@b", r"options inside a URL"),
        ("s3://K:se?c=SECRET@b/x", r"credentials inside a URL"),
        ("simplecache::s3://K:SECRET@b/x", r"chained URLs"),
        ("s3://b/a/../x", r"`\.\.` inside a URL"),
        ("s3://b/%2e%2E/x", r"`\.\.` inside a URL"),
        ("s3://b/%252e./x", r"`\.\.` inside a URL"),
        ("s3://b/a%2f..%2fx", r"`\.\.` inside a URL"),
        ("s3://../x", r"`\.\.` inside a URL"),
        ("file:///data/../etc", r"`\.\.` inside a URL"),
        ("file:///data/%2e%2e/etc", r"`\.\.` inside a URL"),
        (r"s3://b\..\x", r"a backslash inside a URL"),
        ("s3://b/x#frag", r"a fragment"),
        ("https://host/#@evil", r"a fragment"),
        ("s3://b/a\0b", r"a control character"),
        ("s3://b/a\nb", r"a control character"),
        ("/data/a\0b", r"a control character"),
        ("/data/\x1b[2Ja", r"a control character"),
        ("file:///data/a%00b", r"a control character"),
        ("file:///data/a%0ab", r"a control character"),
        ("s3://" + "%25" * 5000, r"more than a path or URL may have"),
        ("~nobody-of-this-name/x", r"home"),
        ("asynclocal:///etc/passwd", r"unknown scheme"),
        ("gs://bucket/x", r"no package installed for gs://.*gcsfs"),
    ],
)
def test_what_cannot_be_used_says_what_to_do(written: str, message: str) -> None:
    with pytest.raises(UnusableError, match=message) as caught:
        locate(written)
    assert "SECRET" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_locating_imports_no_client() -> None:
    """`manifest` and `plan` start in a second: local work must not pay for the S3 client."""
    code = (
        "import sys; from rembert_ray.storage import commit, lease, listing, parquet;"
        "print([m for m in ('botocore', 'aiohttp', 's3fs', 'torch', 'ray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


def test_a_filesystem_is_made_once_per_settings(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = filesystem_for("s3")
    assert filesystem_for("s3a") is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert filesystem_for("s3") is not first


def test_existence_reading_and_deleting(store: Location) -> None:
    target = store.child("a", "x")
    assert not exists(target)
    assert not exists(store)
    put_new(target, b"content")
    assert exists(target)
    assert exists(store)
    assert not exists(store.child("a", "x2"))
    assert read_bytes(target) == b"content"
    delete(target)
    delete(target)
    assert not exists(target)
    with pytest.raises(FileNotFoundError):
        read_bytes(target)
