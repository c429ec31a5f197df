"""Rows that end, hang or break a worker: each ends as an error, all others are right, and nobody waits for them."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from tests.faults.jobs import (
    ROWS_PER_FILE,
    ROWS_PER_SHARD,
    FaultJob,
    assert_same_rows,
    each_store,
    expected_rows,
    texts_of_file,
    write_corpus,
)

# (file, row) -> the word of tests/faults/broken_tag.py that its text holds, and what the row's error says of it.
KILLERS = {
    (0, 5): ("segfault", "ended its process in encode (SIGSEGV)"),
    (0, 33): ("killed", "ended its process in encode (SIGKILL)"),
    (2, 100): ("endless", "ended its process in encode (silent for 25 s)"),
    (3, 7): ("memory", "unexpected: "),
    (4, 9): ("giraffe", "ended its process in infer (SIGSEGV)"),
    (5, 90): ("lion", "ended its process in infer (silent for 25 s)"),
    (6, 3): ("zebra", "the model gave a value that is not a number"),
}
# These break a device once, or want less memory: no row is to blame.
HARMLESS = {(7, 20): "tiger", (8, 60): "elephant"}


def texts_with_killers(number: int) -> list[str]:
    texts = texts_of_file(number)
    words = {place: word for place, (word, _) in KILLERS.items()} | HARMLESS
    for row in range(ROWS_PER_FILE):
        if (number, row) in words:
            texts[row] = f"see the {words[number, row]} there"
    return texts


@pytest.mark.slow
@pytest.mark.timeout(1200)
@each_store(local=1, s3=0)
def test_rows_that_kill_or_hang_are_errors_and_the_others_are_right(
    job: FaultJob, short_model_folder, tmp_path, attempt: int
):
    write_corpus(job.folder.child("corpus"), texts_with_killers)
    scratch = {"BROKEN_SCRATCH": str(tmp_path)}
    code, shown = job.run("limits.stall_s=75", module="tests.faults.broken_tag", timeout_s=1100, **scratch)
    assert code == 0, shown
    rows = job.rows()
    bad = {file * ROWS_PER_FILE + row: why for (file, row), (_, why) in KILLERS.items()}
    errors = {row: error for row, error in enumerate(rows["error"].to_pylist()) if error is not None}
    assert errors.keys() == bad.keys()
    for row, why in bad.items():
        assert why in errors[row]
    (tmp_path / "expected").mkdir()
    expected = expected_rows(short_model_folder, tmp_path / "expected", texts_with_killers)
    good = [row for row in range(len(rows)) if row not in bad]
    assert_same_rows(rows.take(good), expected.take(good))
    assert (tmp_path / "device").exists(), "the device was broken"
    footers = [pq.read_metadata(io.BytesIO(data)).metadata for data in job.objects().values()]
    assert min(int(footer[b"rembert_ray.batch_tokens"]) for footer in footers) <= 256, "the budget was halved"
    made_at = [footer[b"rembert_ray.decode_at"] for footer in footers]
    suspects = {file * 3 + row // ROWS_PER_SHARD for (file, row), word in KILLERS.items() if word[0] != "zebra"}
    others = set(range(len(footers))) - suspects - {7 * 3}
    assert min(made_at[shard] for shard in suspects) > max(made_at[shard] for shard in others), "nobody waited for them"
