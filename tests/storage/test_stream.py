"""Large files as streams and local copies: the same bytes, through faults, of one version, and never for ever."""

from __future__ import annotations

import os
import random

import pytest

from rembert_ray.errors import UnusableError
from rembert_ray.storage import s3, stream
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.storage.put import put_new, put_replacing
from rembert_ray.storage.s3 import ObjectChangedError
from rembert_ray.storage.stream import download, open_file
from tests.servers.fault_proxy import Fault

CONTENT = random.Random(1).randbytes(3 * 2**20 + 17)


def test_a_stream_gives_what_was_written(store):
    target = store.child("weights")
    put_new(target, CONTENT)
    with open_file(target) as file:
        assert file.seek(0, 2) == len(CONTENT)
        assert file.read(5) == b""
        file.seek(100)
        assert file.read(8) == CONTENT[100:108]
        assert file.read(2**21) == CONTENT[108 : 108 + 2**21]
        assert file.read() == CONTENT[108 + 2**21 :]


@pytest.mark.parametrize("step", [2**20, 64 * 2**20])
def test_a_download_is_the_file(s3_folder, tmp_path, monkeypatch, step):
    monkeypatch.setattr(stream, "DOWNLOAD_STEP_BYTES", step)
    put_new(s3_folder.child("weights"), CONTENT)
    download(s3_folder.child("weights"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize("action", ["status:503", "truncate", "hang", "slow"])
def test_broken_and_endless_replies_are_tried_again(s3_folder, tmp_path, monkeypatch, faults, action):
    # The deadline of a range, without its half minute for the connection.
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 1.0)
    put_new(s3_folder.child("weights"), CONTENT)
    faults.faults.append(Fault("GET .*/weights", 2, action))
    download(s3_folder.child("weights"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert not any(fault.times for fault in faults.faults)


def test_an_object_that_changes_meanwhile_is_no_mixture(s3_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "DOWNLOAD_STEP_BYTES", 2**20)
    put_new(s3_folder.child("weights"), CONTENT)
    with open_file(s3_folder.child("weights")) as file:
        file.read(2**20)
        put_replacing(s3_folder.child("weights"), CONTENT[::-1])
        with pytest.raises(ObjectChangedError):
            file.read()


def test_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (open_file, read_bytes):
        with pytest.raises(UnusableError, match="is no plain file"):
            read(Location(str(tmp_path / "pipe")))
