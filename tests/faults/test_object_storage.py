"""Object storage as operators have it: where credentials and endpoints come from, odd names, multipart objects."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import StorageError
from rembert_ray.storage.commit import Part, commit_part, confirm_parts, list_parts
from rembert_ray.storage.filesystem import filesystem_for
from rembert_ray.storage.listing import expand_input, input_root, list_names, partition_values
from rembert_ray.storage.location import Location, delete, exists, locate, read_bytes
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.storage.put import put_new
from tests.faults.dying import REPOSITORY
from tests.servers.s3 import KEY, SECRET

TABLE = pa.table({"id": [1, 2, 3], "text": ["a", None, "c"]})
NAMES = ["a b", "ü é 日本 🙂", "100%", "%41%2F", "a=b", "a+b&c", 'it\'s "q"', "(x)[y]{z}", "~!$,;@^`|", "trailing."]


@pytest.fixture
def without_credentials(s3_folder: Location, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_anonymous_reads_of_public_data(s3_folder: Location, s3_server: Any, without_credentials: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        bucket = s3_folder.path.split("/")[0]
        put_new(s3_folder.child("public.parquet"), parquet_bytes(TABLE))
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        allow = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": resources,
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        filesystem_for("s3").call_s3("put_bucket_policy", Bucket=bucket, Policy=policy)
    script = (
        "import sys\n"
        "from rembert_ray.storage.listing import expand_input\n"
        "from rembert_ray.storage.parquet import read_rows\n"
        "from rembert_ray.storage.probe import probe_output\n"
        "from rembert_ray.storage.location import locate\n"
        "(file,) = expand_input(sys.argv[1])\n"
        "print(read_rows(file.location, 0, 3).to_pydict())\n"
        "print(probe_output(locate(sys.argv[1]).child('out'))[0])\n"
    )
    command = [sys.executable, "-c", script, str(s3_folder)]
    anonymous = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | {"FSSPEC_S3_ANON": "true"}, check=True
    )
    rows, fault = anonymous.stdout.splitlines()
    assert rows == str(TABLE.to_pydict())
    if s3_server.kind == "ceph":
        assert "permission denied (AccessDenied)" in fault
    nobody = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "no credentials found" in nobody.stderr
    assert "FSSPEC_S3_ANON=true" in nobody.stderr


def test_a_profile_with_its_files(
    s3_folder: Location, s3_server: Any, without_credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    credentials = f"[nightly]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(credentials)
    (tmp_path / "config").write_text(f"[profile nightly]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint}\n")
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    assert put_new(s3_folder.child("x"), b"data")
    assert read_bytes(s3_folder.child("x")) == b"data"


def test_the_endpoint_of_s3_alone_goes_before_the_general_one(
    s3_folder: Location, s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="EndpointConnectionError"):
        put_new(s3_folder.child("x"), b"", budget_s=0)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
    assert put_new(s3_folder.child("x"), b"")


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_folders_and_files(store: Location, name: str) -> None:
    output = store.child(name)
    part = Part(1, "ab", "plan", str(output), 0, 3, "attempt")
    assert commit_part(output, part, TABLE, {}).outcome == "written"
    assert commit_part(output, part, TABLE, {}).outcome == "recovered"
    assert list_parts(output, "ab").tolist() == [1]
    assert confirm_parts(output, "ab", np.array([1, 2], np.int64)).tolist() == [1]
    assert list_names(store.child(name)) == [part.name]
    put_new(output.child(f"{name}.parquet"), parquet_bytes(TABLE))
    (found,) = [file for file in expand_input(str(output)) if file.location.name.startswith(name)]
    assert found.location.url == f"{output}/{name}.parquet"
    assert locate(str(found.location)) == found.location
    assert read_rows(found.location, 0, 3).equals(TABLE)
    delete(found.location)
    assert not exists(found.location)


@pytest.mark.parametrize("value", ["pt-BR", "a b", "ü", "100%", "a/b", "x=y", "日本"])
def test_hive_partitions_with_encoded_values(store: Location, value: str) -> None:
    folder = store.child("corpus", f"lang={quote(value, safe='')}")
    put_new(folder.child("a.parquet"), parquet_bytes(TABLE))
    (file,) = expand_input(str(store.child("corpus")))
    assert partition_values(input_root(str(store.child("corpus"))), file.location) == {"lang": value}
    assert read_footer(file.location).num_rows == 3


def test_an_input_that_was_uploaded_in_parts(s3_folder: Location) -> None:
    """Its ETag is no digest and has a dash."""
    table = pa.table({"vector": np.random.default_rng(3).random(1_000_000)})
    data = parquet_bytes(table, row_group_size=100_000, write_page_checksum=True)
    bucket, _, key = s3_folder.child("big.parquet").path.partition("/")
    place = {"Bucket": bucket, "Key": key}
    send = filesystem_for("s3").call_s3
    upload = {**place, "UploadId": send("create_multipart_upload", **place)["UploadId"]}
    cut = 5 * 1024**2
    parts = [
        {"PartNumber": number, "ETag": send("upload_part", PartNumber=number, Body=body, **upload)["ETag"]}
        for number, body in enumerate([data[:cut], data[cut:]], 1)
    ]
    send("complete_multipart_upload", MultipartUpload={"Parts": parts}, **upload)
    (file,) = expand_input(str(s3_folder))
    assert file.version.endswith("-2")
    assert file.size_bytes == len(data)
    assert read_rows(file.location, 123_456, 300_000).equals(table.slice(123_456, 300_000))
