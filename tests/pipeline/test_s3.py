"""A whole job from S3 to S3, on the real server: model, corpus, manifest and output are all there."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import read_bytes
from tests.pipeline.test_kill import start

TEXTS = [f"the light on the hill seen from row {row} " * (1 + row % 9) for row in range(30)]


def upload(location, data: bytes) -> None:
    location.filesystem.pipe_file(location.path, data)


def test_a_job_from_s3_to_s3_and_again(s3_folder, short_model_folder, tmp_path):
    for file in short_model_folder.iterdir():
        upload(s3_folder.child("model", file.name), file.read_bytes())
    for language in ("de", "fr"):
        sink = pa.BufferOutputStream()
        ids = [f"{language}-{row}" for row in range(len(TEXTS))]
        pq.write_table(pa.table({"id": ids, "text": TEXTS}), sink, row_group_size=10)
        upload(s3_folder.child("corpus", f"language={language}", "part é.parquet"), sink.getvalue().to_pybytes())
    manifest = (
        "task: tag\nmodel: model\ninput: {path: corpus, keep: [id, language]}\noutput: {path: out}\n"
        "text: {overlap: 4}\nsharding: {rows: 10}\n"
    )
    upload(s3_folder.child("jobs.yaml"), manifest.encode())
    output = s3_folder.child("out")
    assert start(str(s3_folder.child("jobs.yaml")), output).wait(300) == 0
    parts = list_names(output, "part-")
    assert len(parts) == 6
    tables = [pq.read_table(pa.BufferReader(read_bytes(output.child(part)))) for part in parts]
    rows = pa.concat_tables(tables)
    assert rows["id"].to_pylist() == [f"{language}-{row}" for language in ("de", "fr") for row in range(30)]
    assert set(rows["language"].to_pylist()) == {"de", "fr"}
    assert rows["error"].null_count == 60
    assert json.loads(read_bytes(output.child("_SUCCESS")))["rows_out"] == 60
    head = output.filesystem.call_s3(
        "head_object", Bucket=output.path.split("/")[0], Key=output.child(parts[0]).path.split("/", 1)[1]
    )
    assert {"attempt", "rows", "sha256"} <= head["Metadata"].keys()
    output.filesystem.rm_file(output.child(parts[3]).path)
    assert start(str(s3_folder.child("jobs.yaml")), output).wait(300) == 0
    assert list_names(output, "part-") == parts
