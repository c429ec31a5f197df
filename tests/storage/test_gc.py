"""What killed runs leave is removed once it is old, and nothing else is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import StorageError
from rembert_ray.storage import gc, s3
from rembert_ray.storage.below import names_below
from rembert_ray.storage.gc import remove_files, remove_uploads
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import Location, delete, locate
from rembert_ray.storage.put import put_new
from tests.servers.fault_proxy import Fault

LEFT = [
    ".tmp-part-00000001-ab.parquet-x-0123",
    "_rembert_ray/.tmp-clock-0123456789abcdef",
    "_rembert_ray/.tmp-status.json-x-0123",
    "_rembert_ray/clock-0123456789abcdef",
    "_rembert_ray/probe-0123456789abcdef",
    "_rembert_ray/quarantine/.tmp-shard-00000001.json-x-0123",
]
KEPT = [
    "_SUCCESS",
    "_rembert_ray/lease-000001",
    "_rembert_ray/plan.parquet",
    "_rembert_ray/probe-results.txt",
    "_rembert_ray/quarantine/shard-00000001.json",
    "_rembert_ray/status.json",
    "elsewhere/.tmp-x",
    "part-00000001-ab.parquet",
    "tmp-x",
]


@pytest.fixture
def filled(store: Location) -> Location:
    for name in LEFT + KEPT:
        put_new(store.child(name), b"")
    return store


def test_leftovers_are_removed_and_nothing_else(filled: Location) -> None:
    assert remove_files(filled, 3600) == []
    assert [str(found.location) for found in remove_files(filled, 0, dry_run=True)] == [
        f"{filled}/{LEFT[index]}" for index in (0, 1, 2, 4, 3, 5)
    ]
    assert names_below(filled) == sorted(LEFT + KEPT)
    assert len(remove_files(filled, 0)) == len(LEFT)
    assert names_below(filled) == KEPT
    assert remove_files(filled, 0) == []


def test_age_is_that_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age_s in ((".tmp-old", 4000), (".tmp-new", 3000), ("part", 9000)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age_s, time.time() - age_s))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (found,) = remove_files(locate(str(tmp_path)), 3600)
    assert found.location.name == ".tmp-old"
    assert found.age_s == pytest.approx(4000, abs=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-new", "part"]


def test_a_file_that_vanishes_meanwhile_is_no_error(filled: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = gc.store_age_s

    def remove_first(location: Location) -> float:
        age_s = measure(location) if "probe" not in location.name else 5.0
        delete(location)
        return age_s if "clock" not in location.name else measure(location)

    monkeypatch.setattr(gc, "store_age_s", remove_first)
    found = [leftover.location.name for leftover in remove_files(filled, 0)]
    assert "probe-0123456789abcdef" in found
    assert "clock-0123456789abcdef" not in found
    assert names_below(filled) == KEPT


def test_an_output_that_does_not_exist_has_nothing(store: Location) -> None:
    assert remove_files(store, 0) == remove_uploads(store, 0) == []


def start_upload(location: Location) -> str:
    upload: str = s3.call("create_multipart_upload", location.path)["UploadId"]
    s3.call("upload_part", location.path, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    return upload


def uploads_of(folder: Location) -> list[str]:
    return sorted(entry["Key"] for entry in s3.call("list_multipart_uploads", folder.path).get("Uploads", []))


def test_uploads_that_nobody_completed_are_aborted(s3_folder: Location) -> None:
    inside = [s3_folder.child("part é +1.parquet"), s3_folder.child("x", "y")]
    outside = s3_folder.parent.child("folder2", "x")
    for location in (*inside, outside):
        start_upload(location)
    assert remove_uploads(s3_folder, 3600) == []
    assert [found.location for found in remove_uploads(s3_folder, 0, dry_run=True)] == inside
    assert len(uploads_of(s3_folder)) == 3
    assert len(remove_uploads(s3_folder, 0)) == 2
    assert uploads_of(s3_folder) == ["folder2/x"]
    assert len(remove_uploads(s3_folder.parent, 0)) == 1


def test_many_uploads_are_listed_page_by_page(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        start_upload(s3_folder.child(f"u{number}"))
    call = s3.call

    def in_small_pages(method: str, *place: Any, **arguments: Any) -> dict[str, Any]:
        return call(method, *place, **arguments, **({"MaxUploads": 3} if method == "list_multipart_uploads" else {}))

    monkeypatch.setattr(s3, "call", in_small_pages)
    assert len(remove_uploads(s3_folder, 0)) == 7
    assert uploads_of(s3_folder) == []


def test_the_age_of_an_upload_is_judged_by_the_reply(s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    start_upload(s3_folder.child("x"))
    call = s3.call

    def two_hours_later(method: str, *place: Any, **arguments: Any) -> dict[str, Any]:
        reply = call(method, *place, **arguments)
        reply["ResponseMetadata"]["HTTPHeaders"]["date"] = format_datetime(datetime.now(UTC) + timedelta(hours=2))
        return reply

    monkeypatch.setattr(s3, "call", two_hours_later)
    (found,) = remove_uploads(s3_folder, 3600)
    assert found.age_s == pytest.approx(7200, abs=120)


def test_a_store_that_forbids_listing_uploads_is_named(faults: Any, s3_folder: Location) -> None:
    faults.faults.append(Fault("^GET .*[?&]uploads", -1, "status:403"))
    with pytest.raises(StorageError, match=r"cannot clear the uploads below .*permission denied"):
        remove_uploads(s3_folder, 0)


def test_the_verb_says_what_it_did(filled: Location) -> None:
    def run(*options: str) -> list[str]:
        ended = CliRunner().invoke(app, ["gc", str(filled), *options])
        assert ended.exit_code == 0, ended.output
        return ended.stdout.splitlines()

    assert run() == ["nothing older than 3600 s is left over"]
    shown = run("--older-than", "0", "--dry-run")
    assert len(shown) == len(LEFT)
    assert f"would remove {filled}/{LEFT[0]} (0.0 h old)" in shown
    assert f"removed      {filled}/{LEFT[0]} (0.0 h old)" in run("--older-than", "0")
    assert names_below(filled) == KEPT


def test_young_files_of_a_run_that_is_going_on_are_let_alone(store: Location) -> None:
    put_new(store.child(".tmp-x"), b"")
    with Lease.acquire(store, LeaseOwner.this_process("r7"), heartbeat=False):
        ended = CliRunner().invoke(app, ["gc", str(store), "--older-than", "60"])
        assert ended.exit_code == 2
        assert "run r7 (process" in ended.output
        assert "may be its own" in ended.output
        assert CliRunner().invoke(app, ["gc", str(store)]).exit_code == 0
    assert ".tmp-x" in names_below(store)
    assert CliRunner().invoke(app, ["gc", str(store), "--older-than", "0"]).exit_code == 0
    assert ".tmp-x" not in names_below(store)
