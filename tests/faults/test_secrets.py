"""Secrets are nowhere: real jobs on S3, and then a search of everything that they printed, wrote, logged and showed.

What is searched for is the secret that the jobs really sign with, and planted ones. The search must find a canary in
each kind of place first: a word of the corpus, which the job may write wherever it likes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rembert_ray.storage import s3
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.watchdog import run_folder
from tests.faults.conftest import Head
from tests.faults.jobs import MANIFEST, ROWS_PER_SHARD, Driver, FaultJob, environment_of, parquet_of, upload
from tests.servers.s3 import KEY, SECRET

CANARY = "canary7bird"
PLANTED_SECRET, PLANTED_TOKEN, PLANTED_PASSWORD = "Pl4nted/Secret+Key", "Pl4ntedSessionToken", "Pl4nted/Pass+Word"
SECRETS = [SECRET, PLANTED_SECRET, PLANTED_TOKEN, PLANTED_PASSWORD]

# What a worker prints is in Ray's logs; ours print nothing unless they fail in a way that nobody thought of.
SAY_CANARY = f"""
import ray
ray.init(log_to_driver=False)
ray.get(ray.remote(lambda: print("{CANARY}", flush=True)).remote())
"""

Found = dict[str, set[str]]


def in_bytes(data: bytes, words: list[str]) -> set[str]:
    return {word for word in words if word.encode() in data or word.encode("utf-16-le") in data}


def in_object(location: Location, words: list[str]) -> set[str]:
    """In the bytes, in the rows and footers once decompressed, and in the object's own metadata."""
    data = read_bytes(location)
    found = in_bytes(data, words) | in_bytes(json.dumps(s3.head(location.path), default=str).encode(), words)
    if location.name.endswith(".parquet") and data[-4:] == b"PAR1":
        file = pq.ParquetFile(io.BytesIO(data))
        shown = f"{file.metadata.metadata}{file.schema_arrow.metadata}"
        found |= in_bytes(shown.encode(), words)
        if not location.name.startswith("broken"):
            found |= in_bytes(json.dumps(file.read().to_pylist(), default=str).encode(), words)
    return found


def below(folder: Location) -> Iterator[Location]:
    """Every object below a folder, hidden ones too."""
    bucket = folder.path.partition("/")[0]
    for page in s3.list_pages(folder.path + "/", is_recursive=True):
        yield from (Location(f"s3://{bucket}/{entry['Key']}") for entry in page.get("Contents", []))


def in_files(folder: Path, words: list[str]) -> Found:
    """In every file below a local folder; sockets and the object store's memory are none."""
    found: Found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**28:
            hits = in_bytes(path.read_bytes(), words)
            if hits:
                found[str(path)] = hits
    return found


def in_command_lines(driver: Driver, words: list[str]) -> Found:
    """In what `ps` shows of all processes, as long as the driver runs."""
    found: Found = {}
    while driver.process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes()
            except OSError:
                continue
            if hits := in_bytes(line, words):
                found.setdefault(line.replace(b"\0", b" ").decode(errors="replace"), set()).update(hits)
        time.sleep(0.05)
    return found


def job_at(folder: Location, head: Head, model: Path, scratch: Path, **environment: str) -> FaultJob:
    """A job whose corpus has the canary in a row, in the name of a broken file, and in the manifest's name."""
    scratch.mkdir()
    upload(folder.child("corpus", "00.parquet"), parquet_of([f"{CANARY} on row {row}" for row in range(20)], "00"))
    good = parquet_of([f"the light seen from row {row} " * 20 for row in range(80)], "01")
    upload(folder.child("corpus", f"broken-{CANARY}.parquet"), good[:200] + bytes(200) + good[400:])
    manifest = scratch / f"{CANARY}.yaml"
    places = {"corpus": folder.child("corpus"), "output": folder.child("out"), "model": model}
    manifest.write_text(MANIFEST.format(**places, rows=ROWS_PER_SHARD))
    made = environment_of(head.address, head.proxy.endpoint) | environment
    return FaultJob(folder, scratch, str(manifest), made)


def test_no_secret_is_anywhere(s3_folder, s3_server, ray_head, short_model_folder, tmp_path):
    words = [CANARY, *SECRETS]
    job = job_at(s3_folder, ray_head, short_model_folder, tmp_path / "scratch")
    assert job.environment["AWS_SECRET_ACCESS_KEY"] == SECRET
    driver = job.start("limits.attempts=1")
    shown = {"ps, success": in_command_lines(driver, words)}
    assert driver.process.returncode == 3, driver.shown
    shown["screen, success"] = {"driver": in_bytes(driver.shown.encode(), words)}
    searched = [str(place) for place in below(job.output)]
    assert {"_rembert_ray"} < {name.split("/")[-2] for name in searched}
    shown["objects"] = {str(place): in_object(place, words) for place in below(job.output)}
    # The same job with credentials that are refused, and with a manifest that holds some.
    wrong = {"AWS_SECRET_ACCESS_KEY": PLANTED_SECRET}
    with_token = {"AWS_SESSION_TOKEN": PLANTED_TOKEN}
    (tmp_path / "scratch" / "url.yaml").write_text(
        Path(job.manifest).read_text().replace("corpus: ", "").replace("s3://", f"s3://{KEY}:{PLANTED_PASSWORD}@")
    )
    failures: dict[str, Any] = {"wrong secret": wrong, "token": with_token, "wrong secret, token": wrong | with_token}
    for name, environment in failures.items():
        driver = job.start(f"output.path={job.folder.child('elsewhere')}", **environment)
        shown[f"ps, {name}"] = in_command_lines(driver, words)
        shown[f"screen, {name}"] = {"driver": in_bytes(driver.shown.encode(), words)}
        if s3_server.checks_secrets and "secret" in name:
            assert driver.process.returncode == 2, driver.shown
            assert "credentials are refused" in driver.shown
    job.manifest = str(tmp_path / "scratch" / "url.yaml")
    driver = job.start()
    shown["ps, URL"] = in_command_lines(driver, words)
    shown["screen, URL"] = {"driver": in_bytes(driver.shown.encode(), words)}
    assert driver.process.returncode == 2, driver.shown
    assert "credentials inside a URL" in driver.shown
    shown["objects"] |= {str(place): in_object(place, words) for place in below(job.folder)}
    subprocess.run([sys.executable, "-c", SAY_CANARY], env=job.environment, check=True, timeout=120)
    shown["traces of workers"] = in_files(run_folder("any").parent, words)
    shown["Ray's logs"] = in_files(Path(ray_head.environment["HOME"]), words)
    leaks = {
        (kind, place, word)
        for kind, found in shown.items()
        for place, hits in found.items()
        for word in hits
        if word != CANARY
    }
    assert leaks == set()
    for kind in ("ps, success", "screen, success", "objects", "Ray's logs"):
        assert any(CANARY in hits for hits in shown[kind].values()), f"the search finds nothing in {kind}: it is blind"
    parts = [name for name in list_names(job.output) if name.startswith("part-")]
    assert any(CANARY in shown["objects"][str(job.output.child(name))] for name in parts)


def test_the_search_finds_what_is_there(s3_folder, tmp_path):
    """Each kind of place with the secret in it."""
    upload(s3_folder.child("a.parquet"), parquet_of([SECRET] * 3, "a"))
    upload(s3_folder.child("b.json"), json.dumps({"a": SECRET}).encode())
    assert all(in_object(place, SECRETS) == {SECRET} for place in below(s3_folder))
    assert in_bytes(read_bytes(s3_folder.child("a.parquet")), ["no such word"]) == set()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.log").write_text(f"key={PLANTED_SECRET}")
    assert in_files(tmp_path, SECRETS) == {str(tmp_path / "logs" / "x.log"): {PLANTED_SECRET}}
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") == SECRET
