"""Create-only puts: exactly one winner, nothing partial under the final name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rembert_ray.errors import ShardError, StorageError, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.listing import list_files, list_names
from rembert_ray.storage.location import Location, delete, exists, locate, read_bytes
from rembert_ray.storage.put import put_new, put_replacing, rename_new


def test_the_second_put_is_refused_and_changes_nothing(store: Location) -> None:
    target = store.child("deep", "x")
    assert put_new(target, b"first")
    assert not put_new(target, b"second")
    assert read_bytes(target) == b"first"
    assert [str(file.location) for file in list_files(store)] == [str(target)]


def test_an_empty_file_counts_as_a_file(store: Location) -> None:
    assert put_new(store.child("x"), b"")
    assert not put_new(store.child("x"), b"more")
    assert read_bytes(store.child("x")) == b""


def test_of_racing_threads_exactly_one_wins(store: Location) -> None:
    n_threads = 12
    gate = threading.Barrier(n_threads)

    def race(index: int) -> bool:
        gate.wait()
        return put_new(store.child("x"), f"{index}".encode() * 1000)

    with ThreadPoolExecutor(n_threads) as pool:
        won = list(pool.map(race, range(n_threads)))
    assert sum(won) == 1
    assert read_bytes(store.child("x")) == f"{won.index(True)}".encode() * 1000
    assert list_names(store) == ["x"]


def test_memory_is_create_only_as_well() -> None:
    target = locate(f"memory://test-put/{time.time_ns()}")
    assert put_new(target, b"first")
    assert not put_new(target, b"second")
    assert read_bytes(target) == b"first"
    delete(target)
    assert not exists(target)


def test_a_store_without_create_only_puts_is_refused() -> None:
    with pytest.raises(UnusableError, match="no known create-only put"):
        put_new(locate("http://127.0.0.1:9/x"), b"")


def test_metadata_becomes_user_metadata(s3_folder: Location) -> None:
    target = s3_folder.child("x")
    put_new(target, b"data", {"attempt": "a1", "rows": "7"})
    assert s3.head(target.path)["Metadata"] == {"attempt": "a1", "rows": "7"}


def test_a_large_object_goes_in_one_put(s3_folder: Location) -> None:
    """Above s3fs's own limit of 100 MiB, where it would turn to a multipart upload."""
    target = s3_folder.child("x")
    data = os.urandom(1 << 20) * 120
    assert put_new(target, data)
    assert "-" not in s3.head(target.path)["ETag"]
    assert not put_new(target, data)
    assert read_bytes(target) == data


def test_more_than_one_put_can_hold_is_refused(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "LARGEST_PUT_BYTES", 10)
    with pytest.raises(ShardError, match="smaller shards"):
        put_new(s3_folder.child("x"), b"x" * 11)


def test_replacing_is_whole_and_leaves_no_temporary_file(store: Location) -> None:
    put_replacing(store.child("status.json"), b"old")
    put_replacing(store.child("status.json"), b"new")
    assert read_bytes(store.child("status.json")) == b"new"
    assert list_names(store) == ["status.json"]


def test_a_kill_before_the_name_leaves_nothing_visible(tmp_path: Path) -> None:
    """A process is killed with SIGKILL after the temporary file is complete and before it gets its name."""
    script = """
import os, signal, sys
from pathlib import Path
from rembert_ray.storage import put
from rembert_ray.storage.location import locate
put._name_new = lambda temp, path: os.kill(os.getpid(), signal.SIGKILL)
put.put_new(locate(sys.argv[1]), b"x" * 100000, {"attempt": "dead"})
"""
    target = tmp_path / "out" / "part"
    done = subprocess.run([sys.executable, "-c", script, str(target)], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    left = list((tmp_path / "out").iterdir())
    assert [path.name.startswith(".tmp-part-dead-") for path in left] == [True]
    assert left[0].stat().st_size == 100000
    assert list_files(locate(str(tmp_path))) == []
    assert put_new(locate(str(target)), b"alive")


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the file size of the process, which makes a real write fail half way."""
    script = """
import resource, sys
from rembert_ray.errors import StorageError
from rembert_ray.storage.location import locate
from rembert_ray.storage.put import put_new
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    put_new(locate(sys.argv[1]), b"x" * 10000)
except StorageError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out" / "part")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "File too large" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_an_attempt_of_odd_characters_is_a_file_name(tmp_path: Path) -> None:
    assert put_new(locate(str(tmp_path / "x")), b"", {"attempt": "a/../b" + "c" * 300})


def test_without_hard_links_a_create_only_rename_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    target = locate(str(tmp_path / "x"))
    assert put_new(target, b"first")
    assert not put_new(target, b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_create_only_rename_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    assert not rename_new(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert rename_new(tmp_path / "new", tmp_path / "free")
    assert (tmp_path / "free").read_bytes() == b"new"


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        put_new(locate(str(tmp_path / "file" / "x")), b"")


def test_a_bucket_that_does_not_exist_is_named(s3_server: object) -> None:
    with pytest.raises(StorageError, match=r"s3://no-such-bucket-here/x: no such bucket"):
        put_new(locate("s3://no-such-bucket-here/x"), b"")


def test_wrong_credentials_are_named(s3_folder: Location, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not s3_server.checks_secrets:
        pytest.skip("moto accepts any secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"credentials are refused.*SignatureDoesNotMatch"):
        put_new(s3_folder.child("x"), b"")


def test_an_endpoint_that_nobody_serves_is_given_up_in_time(
    s3_folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"EndpointConnectionError.*Run the same command again"):
        put_new(s3_folder.child("x"), b"", budget_s=0.1)
