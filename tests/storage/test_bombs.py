"""Small files that decode to gigabytes end as a `ShardError`: the reading process lives, and its memory stays bounded.

Each is read in a process of its own, so that its peak can be measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.errors import ShardError
from rembert_ray.storage import parquet
from rembert_ray.storage.decoded_size import written_out_bytes
from rembert_ray.storage.location import locate
from rembert_ray.storage.memory_limit import limited_growth
from rembert_ray.storage.parquet import read_rows
from tests.storage import bombs

BOMBS = {
    "a text of 1 MB, 10,000 times": lambda: bombs.repeated_text(10**6, 10_000),
    "a text of 100 MB, 100 times": lambda: bombs.repeated_text(10**8, 100),
    "a value of 10 MB, 1,024 times": lambda: bombs.wide_values(10**7, 1024),
    "a text of 2 GB": lambda: bombs.one_text(2**31 - 100),
    "a list of a billion nulls": lambda: bombs.endless_list(10**9, are_null=True),
    "a list of a billion texts": lambda: bombs.endless_list(10**9, are_null=False),
}
MOST_BYTES = 5 * 1024**3
READ = """
import json, resource, sys
from pathlib import Path
from rembert_ray.errors import ShardError
from rembert_ray.storage.location import locate
from rembert_ray.storage.parquet import read_footer, read_rows
from rembert_ray.storage.memory_limit import limited_growth
bomb, good = locate(sys.argv[1]), locate(sys.argv[2])
refused = []
for _ in range(2):
    try:
        read_rows(bomb, 0, read_footer(bomb).num_rows)
    except ShardError as error:
        refused.append(str(error))
n_good = read_rows(good, 0, 3).num_rows
# Not ru_maxrss: a child begins with the peak of the process that forked it.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
is_limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
print(json.dumps({"refused": refused, "n_good": n_good, "peak": peak, "is_limited": is_limited}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda name: name.replace(" ", "_"))
def test_a_bomb_is_refused_and_the_process_lives(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.parquet"
    path.write_bytes(BOMBS[bomb]())
    assert path.stat().st_size < 70_000
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "good.parquet")
    command = [sys.executable, "-c", READ, str(path), str(tmp_path / "good.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["refused"]) == 2
    assert all(str(path) in message and "decode" in message for message in found["refused"])
    assert found["n_good"] == 3
    assert found["peak"] < MOST_BYTES
    assert not found["is_limited"]


def test_the_crafted_files_are_sound_when_they_are_small(tmp_path: Path) -> None:
    """Else they would be refused for another reason than their size."""
    expected = {
        bombs.repeated_text(5, 3): ["xxxxx"] * 3,
        bombs.wide_values(2, 3): [b"\0\0"] * 3,
        bombs.one_text(4): ["\0" * 4],
        bombs.endless_list(4, are_null=True): [[None] * 4],
        bombs.endless_list(4, are_null=False): [["x" * 8] * 4],
    }
    for data, values in expected.items():
        (tmp_path / "x").write_bytes(data)
        location = locate(str(tmp_path / "x"))
        assert read_rows(location, 0, len(values))["text"].to_pylist() == values


def test_a_dictionary_is_counted_as_what_it_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), ["x" * 100_000])
    pq.write_table(pa.table({"label": shared}), tmp_path / "x", compression="zstd")
    monkeypatch.setattr(parquet, "LARGEST_TABLE_BYTES", 50_000_000)
    with pytest.raises(ShardError, match="decode to more than 50000000 bytes"):
        read_rows(locate(str(tmp_path / "x")), 0, 4000)


def test_what_is_shared_is_counted_once_for_each_row() -> None:
    shared = pa.DictionaryArray.from_arrays(pa.array([0, 0, None, 0], pa.int32()), ["x" * 1000])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 4], pa.int32()), shared)
    pairs = pa.MapArray.from_arrays(pa.array([0, 1, 4], pa.int32()), pa.array([1, 2, 3, 4], pa.int8()), shared)
    assert [written_out_bytes(column) for column in (shared, lists, lists.slice(0, 1))] == [3000, 3000, 1000]
    assert [written_out_bytes(column) for column in (pairs, pairs.slice(1, 1))] == [3004, 2003]
    assert written_out_bytes(pa.StructArray.from_arrays([shared], ["a"]).slice(3, 1)) == 1000
    assert written_out_bytes(pa.array(["x" * 1000] * 2, pa.string_view())) >= 2000
    plain = pa.array([["a", "bc"], None])
    assert written_out_bytes(plain) == plain.nbytes


def test_rows_that_are_large_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 1,024 rows would hold 20 MB where the shard holds 40 kB; a page of the file holds 1 MB."""
    texts = [f"{row:020d}" * 1000 for row in range(1000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "x", use_dictionary=False, write_batch_size=10)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 100_000)
    before = pa.system_memory_pool().max_memory()
    rows = read_rows(locate(str(tmp_path / "x")), 500, 2)
    assert rows["text"].to_pylist() == texts[500:502]
    assert pa.system_memory_pool().max_memory() - before < 5_000_000


def test_the_limit_ends_with_the_last_of_those_who_are_inside() -> None:
    import resource

    before, pool = resource.getrlimit(resource.RLIMIT_AS), pa.default_memory_pool().backend_name
    first, second = limited_growth(10**9), limited_growth(10**9)
    first.__enter__()
    inside = resource.getrlimit(resource.RLIMIT_AS)
    second.__enter__()
    assert resource.getrlimit(resource.RLIMIT_AS) == inside != before
    first.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_AS) == inside
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert pa.default_memory_pool().backend_name == pool
    with pytest.raises(MemoryError), limited_growth(10**8):
        bytes(10**9)
