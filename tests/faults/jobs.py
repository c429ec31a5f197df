"""A small real job whose driver, workers, input and storage can be broken, and what its output must then hold.

Drivers are processes of their own that join one Ray head (tests/faults/conftest.py). The head's workers and the drivers
reach S3 through a proxy that breaks requests when it is told to.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, exists, read_bytes
from rembert_ray.watchdog import run_folder
from tests.stages.conftest import make_spec, run_shard

REPOSITORY = Path(__file__).parents[2]
N_FILES, ROWS_PER_FILE, ROWS_PER_SHARD = 10, 120, 40
N_SHARDS = N_FILES * ROWS_PER_FILE // ROWS_PER_SHARD
WORDS = "in the sky up above the house on the hill there was a light that no one saw".split()

MANIFEST = """
task: tag
model: {model}
input: {{path: {corpus}, keep: [id, text]}}
output: {{path: {output}}}
head: {{aggregation: first, ignore_labels: []}}
text: {{overlap: 4}}
sharding: {{rows: {rows}}}
resources: {{actors: 2, encoders: 2, cpus_per_actor: 0.5}}
"""


def tries(usual: int) -> int:
    """How often a test is repeated: `usual`, or what `benchmarks.chaos` asks for."""
    return int(os.environ.get("REMBERT_RAY_TRIES") or usual)


def each_store(local: int, s3: int) -> pytest.MarkDecorator:
    """Run a test so often on a local disk and so often on S3, its `attempt` counting; `tries` goes before both."""
    cases = [(store, attempt) for store, usual in (("local", local), ("s3", s3)) for attempt in range(tries(usual))]
    return pytest.mark.parametrize(("store", "attempt"), cases, indirect=["store"])


def texts_of_file(number: int) -> list[str]:
    """Texts of 1 to 60 words, no two alike."""
    return [
        f"{number} {row} " + " ".join(WORDS[(number + row * step) % len(WORDS)] for step in range(1 + (7 * row) % 60))
        for row in range(ROWS_PER_FILE)
    ]


def parquet_of(texts: list[str], stem: str) -> bytes:
    """A file with id and text, in row groups of one shard each."""
    sink = io.BytesIO()
    table = pa.table({"id": [f"{stem}-{row}" for row in range(len(texts))], "text": texts})
    pq.write_table(table, sink, row_group_size=ROWS_PER_SHARD, write_page_checksum=True)
    return sink.getvalue()


def upload(location: Location, data: bytes) -> None:
    """Put one file, folders made."""
    if location.is_local:
        Path(location.path).parent.mkdir(parents=True, exist_ok=True)
        Path(location.path).write_bytes(data)
    else:
        location.filesystem.pipe_file(location.path, data)


def write_corpus(folder: Location, texts_of: Callable[[int], list[str]] = texts_of_file) -> None:
    """The job's input: `N_FILES` files."""
    for number in range(N_FILES):
        upload(folder.child(f"{number:02d}.parquet"), parquet_of(texts_of(number), f"{number:02d}"))


@dataclass
class Driver:
    """A driver that was started: `process`, and everything that it has printed so far."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def shown(self) -> str:
        """Standard output and error together."""
        return self.log.read_text(errors="replace")

    def end(self, timeout_s: float = 300) -> int:
        """Wait for it; its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {timeout_s:g} s:\n{self.shown[-3000:]}") from None


@dataclass
class FaultJob:
    """`start` or `run` it as often as needed; every run goes to the same output."""

    folder: Location
    scratch: Path
    manifest: str
    environment: dict[str, str]
    output: Location = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.folder.child("out")

    def start(
        self, *overrides: str, prefix: tuple[str, ...] = (), module: str = "rembert_ray", **environment: str
    ) -> Driver:
        """A driver; `prefix` is a command before it, such as faketime's, `module` a broken one in its place."""
        command = [*prefix, sys.executable, "-m", module, "run", self.manifest]
        command += [part for override in overrides for part in ("--set", override)]
        log = self.scratch / f"driver-{len(list(self.scratch.glob('driver-*')))}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                cwd=REPOSITORY,
            )
        return Driver(process, log)

    def run(
        self, *overrides: str, timeout_s: float = 300, module: str = "rembert_ray", **environment: str
    ) -> tuple[int, str]:
        """(exit code, what it printed)."""
        driver = self.start(*overrides, module=module, **environment)
        return driver.end(timeout_s), driver.shown

    def parts(self) -> list[str]:
        """Names of the objects that are there."""
        return list_names(self.output, "part-")

    def wait_for_parts(self, n_parts: int, driver: Driver, timeout_s: float = 240) -> None:
        """Until so many objects are there."""
        deadline = time.monotonic() + timeout_s
        while len(self.parts()) < n_parts:
            assert driver.process.poll() is None, f"the driver ended first:\n{driver.shown[-3000:]}"
            assert time.monotonic() < deadline, f"too slow:\n{driver.shown[-3000:]}"
            time.sleep(0.05)

    def wait_for_event(self, event: str, driver: Driver, timeout_s: float = 120) -> None:
        """Until the driver has told that this happened."""
        deadline = time.monotonic() + timeout_s
        while f" event={event} " not in driver.shown:
            assert driver.process.poll() is None, f"the driver ended first:\n{driver.shown[-3000:]}"
            assert time.monotonic() < deadline, f"too slow:\n{driver.shown[-3000:]}"
            time.sleep(0.05)

    def objects(self) -> dict[str, bytes]:
        """Every object with its bytes."""
        return {name: read_bytes(self.output.child(name)) for name in self.parts()}

    def rows(self) -> pa.Table:
        """The rows of all objects in the order of the shards."""
        return pa.concat_tables(pq.read_table(io.BytesIO(data)) for data in self.objects().values())

    def control(self, *names: str) -> Any:
        """A JSON file of the output, such as `_SUCCESS`."""
        return json.loads(read_bytes(self.output.child(*names)))

    def worker_pids(self) -> list[int]:
        """The worker processes of the run that is going on."""
        lease = max(list_names(self.output.child("_rembert_ray"), "lease-"))
        run_id = json.loads(read_bytes(self.output.child("_rembert_ray", lease)))["owner"]["run_id"]
        pids = [int(path.stem.rpartition("-")[2]) for path in run_folder(run_id).glob("*.stacks")]
        return sorted(pid for pid in pids if Path("/proc", str(pid)).exists())

    def is_closed(self) -> bool:
        """Whether `_SUCCESS` is there."""
        return exists(self.output.child("_SUCCESS"))


def expected_rows(model: Path, scratch: Path, texts_of: Callable[[int], list[str]] = texts_of_file) -> pa.Table:
    """What an undisturbed run gives, made by the stages in this process."""
    spec = make_spec(model, scratch / "out", keep=("id", "text"), aggregation="first", ignore_labels=[])
    tables = []
    for number in range(N_FILES):
        path = scratch / f"{number:02d}.parquet"
        path.write_bytes(parquet_of(texts_of(number), path.stem))
        receipt, table = run_shard(spec, path)
        assert table is not None, receipt.failure
        Path(spec.output.child(receipt.facts["object"]).path).unlink()
        tables.append(table)
    return pa.concat_tables(tables)


def assert_same_rows(found: pa.Table, expected: pa.Table) -> None:
    """Every row once, in order, with the same values; scores may differ in the last bits."""
    assert found.schema.equals(expected.schema)
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    assert found.drop_columns("entities").equals(expected.drop_columns("entities"))
    for ours, theirs in zip(found["entities"].to_pylist(), expected["entities"].to_pylist(), strict=True):
        assert [{**entity, "score": 0} for entity in ours or []] == [{**entity, "score": 0} for entity in theirs or []]
        scores = ([entity["score"] for entity in entities or []] for entities in (ours, theirs))
        assert next(scores) == pytest.approx(next(scores), abs=1e-4)


def environment_of(address: str, endpoint: str | None) -> dict[str, str]:
    """What a driver gets: the head's address, and S3 through `endpoint`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY)}
    if endpoint is not None:
        environment["AWS_ENDPOINT_URL"] = endpoint
    return environment
