"""A finished output without Ray, by the functions that a job calls: the plan, parts, status, lease, `_SUCCESS`."""

from __future__ import annotations

import random
import shlex
import subprocess
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.fingerprint import Fingerprint
from rembert_ray.plan import InputNeeds, Plan, Shard, freeze_plan, make_plan
from rembert_ray.report import status
from rembert_ray.storage.below import names_below
from rembert_ray.storage.commit import Part, commit_part
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.listing import expand_input
from rembert_ray.storage.location import Location, delete, read_bytes
from rembert_ray.storage.put import put_new, put_replacing

N_FILES, ROWS_PER_FILE, ROWS_PER_SHARD = 3, 20, 8
N_SHARDS = N_FILES * -(-ROWS_PER_FILE // ROWS_PER_SHARD)
FINGERPRINT = Fingerprint({"task": "tag", "model.digest": "abc"})


def plan_of(folder: Location) -> Plan:
    """A corpus of few rows below `folder`, and its plan: id is kept, as `number` in the output."""
    for index in range(N_FILES):
        ids = pa.array(range(100 * index, 100 * index + ROWS_PER_FILE), pa.int64())
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": ids, "text": [f"text {number}" for number in ids.to_pylist()]}), sink)
        put_new(folder.child(f"{index}.parquet"), sink.getvalue().to_pybytes())
    needs = InputNeeds(columns={"text": "text"}, keep=["id"], max_rows=ROWS_PER_SHARD, max_bytes=2**20)
    record = {"manifest": {"task": "tag", "head": {}, "input": {"rename": {"id": "number"}}}}
    return make_plan(expand_input(str(folder)), folder, needs, FINGERPRINT, record)


def rows_of(shard: Shard) -> pa.Table:
    """What a task might have made of a shard."""
    file = int(shard.url.rsplit("/", 1)[1].removesuffix(".parquet"))
    numbers = range(100 * file + shard.row_start, 100 * file + shard.row_start + shard.n_rows)
    generator = random.Random(shard.index)
    columns = {
        "number": pa.array(numbers, pa.int64()),
        "embedding": pa.array([[generator.random()] * 4 for _ in numbers], pa.list_(pa.float32(), 4)),
        "entities": pa.array([[{"word": f"word {number}", "start": number}] for number in numbers]),
        "error": pa.array([None if number % 7 else "text is null" for number in numbers], pa.string()),
    }
    return pa.table(columns)


def commit_shards(output: Location, plan: Plan, numbers: Iterable[int]) -> None:
    """Commit these shards as a run would."""
    digest = plan.fingerprint.digest
    for number in numbers:
        s = plan.shard(number)
        part = Part(s.index, digest, s.plan_id, s.url, s.row_start, s.n_rows, attempt=f"run-{number}")
        rows = rows_of(s)
        n_errors = rows.num_rows - rows["error"].null_count
        commit_part(output, part, rows, {"task": "tag", "n_errors": str(n_errors), "infer_s": "0.5"})


def close(output: Location, plan: Plan) -> None:
    """Write `_SUCCESS` as a run does that has found all of its parts."""
    content = {"plan": plan.plan_id, "fingerprint": plan.fingerprint.digest, "shards": plan.n_shards}
    status.close(output, content | {"rows_in": plan.n_rows, "rows_out": plan.n_rows, "run": "run"})


def finish_output(folder: Location) -> tuple[Location, Plan]:
    """A whole output below `folder`, with every kind of control file that a finished run leaves."""
    output, plan = folder.child("out"), plan_of(folder.child("corpus"))
    with Lease.acquire(output, LeaseOwner.this_process("run"), heartbeat=False):
        freeze_plan(output, plan)
        commit_shards(output, plan, range(plan.n_shards))
        status.quarantine(output, "file-00000000", {"source": "x.parquet", "reason": "an old record"})
        close(output, plan)
        status.write(output, {"state": "done", "exit_code": 0, "message": "", "run": "run"})
    return output, plan


def replace_file(location: Location, data: bytes) -> None:
    """Other bytes under the same name, with the same metadata, as when a disk or a network damages them."""
    if location.is_s3:
        bucket, _, key = location.path.partition("/")
        head = location.filesystem.call_s3("head_object", Bucket=bucket, Key=key)
        location.filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, Metadata=head["Metadata"])
    else:
        put_replacing(location, data)


def flipped_bits(output: Location, n_flips: int, seed: int) -> Iterator[tuple[str, int]]:
    """Flip one bit below an output, give its place (name, bit), and flip it back; again and again.

    First one in each file, then any of all files.
    """
    generator = random.Random(seed)
    files = {name: read_bytes(output.child(name)) for name in names_below(output)}
    names, sizes = list(files), [len(data) for data in files.values()]
    for index in range(n_flips):
        name = names[index] if index < len(names) else generator.choices(names, sizes)[0]
        bit = generator.randrange(8 * len(files[name]))
        damaged = bytearray(files[name])
        damaged[bit // 8] ^= 1 << bit % 8
        replace_file(output.child(name), bytes(damaged))
        yield name, bit
        replace_file(output.child(name), files[name])


def follow(output: Location, commands: Iterable[str]) -> None:
    """Do what the printed commands say: run them on a local disk, delete the object of `aws s3 rm URL` on S3."""
    for command in commands:
        assert str(output) in command
        words = shlex.split(command)
        if output.is_local:
            assert subprocess.run(words, check=False).returncode == 0, command
        else:
            assert words[:3] == ["aws", "s3", "rm"]
            delete(Location(words[3]))
