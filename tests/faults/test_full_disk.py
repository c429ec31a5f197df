"""A disk that is full: a small file system in memory, mounted where only one child process and its children see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_corpus, write_manifest
from tests.faults.jobs import REPOSITORY

COMMITS = """
import sys
import numpy as np, pyarrow as pa
from pathlib import Path
from rembert_ray.errors import StorageError
from rembert_ray.storage.commit import Part, commit_part, list_parts
from rembert_ray.storage.location import locate
output = locate(sys.argv[1])
table = pa.table({"vector": np.random.default_rng(1).random(20_000)})
def commit(shard):
    part = Part(shard, "ab", "plan", "in", 0, table.num_rows, f"attempt-{shard}")
    return commit_part(output, part, table, {}).outcome
assert commit(0) == "written"
for attempt in range(2):
    try:
        commit(1)
        print("no error")
    except StorageError as error:
        print(error)
    print(sorted(path.name for path in Path(output.path).iterdir()))
Path(output.path, "part-00000000-ab.parquet").unlink()
print(commit(1), list_parts(output, "ab").tolist())
"""


def in_a_small_disk(folder: Path, size: str, script: str, **environment: str) -> list[str]:
    """What a shell script prints for which `folder` is a file system of `size`; skips where that is not allowed."""
    folder.mkdir()
    # As root a namespace of mounts is enough; others need one of users around it.
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size={size} none {folder}"
    if subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here, not even in a namespace of its own")
    command = [*unshare, "sh", "-c", f"{mount} && {script}"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=os.environ | environment, timeout=300
    )
    print(done.stdout, done.stderr)
    return done.stdout.splitlines()


def test_a_part_that_does_not_fit_is_absent_and_said_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (tmp_path / "commits.py").write_text(COMMITS)
    lines = in_a_small_disk(disk, "256k", f"{sys.executable} {tmp_path}/commits.py {disk}", PYTHONPATH=str(REPOSITORY))
    for error, names in (lines[:2], lines[2:4]):
        assert error.startswith(f"cannot write {disk}/part-00000001-ab.parquet: No space left on device (free space")
        assert names == "['part-00000000-ab.parquet']", "neither a partial object nor a temporary file"
    assert lines[4] == "written [1]"


@pytest.mark.slow
def test_a_job_whose_disk_is_full_ends_with_5_and_goes_on_when_it_is_not(
    tmp_path: Path, short_model_folder: Path
) -> None:
    """It has a Ray of its own, because workers must see the small disk too."""
    disk = tmp_path / "disk"
    for number in range(6):
        texts = [f"{number} {row} " + os.urandom(2000).hex() for row in range(40)]
        write_corpus(tmp_path / "corpus" / f"{number}.parquet", texts)
    manifest = write_manifest(
        tmp_path,
        f"task: embed\nmodel: {short_model_folder}\ninput: {{path: corpus, keep: [id, text]}}\n"
        f"output: {{path: {disk}/out}}\nsharding: {{rows: 40}}\ntext: {{overlap: 4, long_documents: truncate}}\n",
    )
    run = f"{sys.executable} -m rembert_ray run {manifest} 2>&1; echo exit $?; ls {disk}/out"
    enlarge = f"mount -o remount,size=64m {disk}"
    unset = "unset RAY_ADDRESS"
    environment = {"PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    lines = in_a_small_disk(disk, "400k", f"{unset}; {run}; echo; {enlarge}; {run}", **environment)
    cut = lines.index("")
    first, second = lines[:cut], lines[cut:]
    assert "exit 5" in first
    assert any("event=error" in line and "cannot write" in line and "No space left on device" in line for line in first)
    n_before = sum(line.startswith("part-") for line in first)
    assert n_before < 6
    assert "_SUCCESS" not in first
    assert "exit 0" in second
    assert sum(line.startswith("part-") for line in second) == 6
    assert "_SUCCESS" in second
