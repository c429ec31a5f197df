"""A night's corpus with everything in it that a file can be: what can be read is written, the rest is named."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import delete, exists
from tests.faults.jobs import (
    N_FILES,
    ROWS_PER_FILE,
    ROWS_PER_SHARD,
    Driver,
    FaultJob,
    assert_same_rows,
    parquet_of,
    texts_of_file,
    upload,
)

N_GOOD = 3
"""Files that stay as the fixture wrote them; the first rows of the corpus."""


def good_table(stem: str) -> pa.Table:
    return pq.read_table(io.BytesIO(parquet_of(texts_of_file(0), stem)))


def stored(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def corrupt_footer(stem: str) -> bytes:
    data = bytearray(parquet_of(texts_of_file(0), stem))
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[start : start + 20] = b"\xff" * 20
    return bytes(data)


def corrupt_page(stem: str) -> bytes:
    """The second of three row groups cannot be read."""
    data = bytearray(parquet_of(texts_of_file(0), stem))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(1).column(1)
    data[chunk.dictionary_page_offset + 40] ^= 0xFF
    return bytes(data)


def truncated(stem: str) -> bytes:
    data = parquet_of(texts_of_file(0), stem)
    return data[: len(data) // 2]


def wrong_text(stem: str) -> bytes:
    return stored(good_table(stem).set_column(1, "text", pa.array(range(ROWS_PER_FILE))))


def wrong_kept(stem: str) -> bytes:
    return stored(good_table(stem).set_column(0, "id", pa.array(range(ROWS_PER_FILE))))


def missing_column(stem: str) -> bytes:
    return stored(good_table(stem).rename_columns(["id", "body"]))


def bomb(stem: str) -> bytes:
    """One text of 30 MB for all 40 rows; it is in the file once, compressed."""
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS_PER_SHARD, pa.int32()), ["x" * 30_000_000])
    table = pa.table({"id": [f"{stem}-{row}" for row in range(ROWS_PER_SHARD)], "text": shared})
    return stored(table, store_schema=False, dictionary_pagesize_limit=2**30, compression="zstd")


def ray_type(stem: str) -> bytes:
    """A column that no task reads, of a type whose metadata Ray would load in every worker."""
    column = pa.field("image", pa.string(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    return stored(good_table(stem).append_column(column, pa.array(["x"] * ROWS_PER_FILE)))


SET_ASIDE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "10-corrupt-footer": (corrupt_footer, "its footer cannot be used"),
    "11-truncated": (truncated, "its footer cannot be used"),
    "12-wrong-text": (wrong_text, "column 'text' is int64, 'text' needs text (string)"),
    "13-wrong-kept": (wrong_kept, "column 'id' is int64 here, but string in"),
    "14-missing-column": (missing_column, "no column 'text' (known: body, id)"),
    "15-ray-type": (ray_type, "Ray's own type ray.data.arrow_pickled_object in column 'image'"),
}
QUARANTINED: dict[str, tuple[Callable[[str], bytes], str]] = {
    "16-corrupt-page": (corrupt_page, "rows 40 to 80: cannot be read"),
    "17-bomb": (bomb, "decode to more than 1073741824 bytes"),
}


def wait_for_the_plan(job: FaultJob, driver: Driver) -> None:
    """Workers take seconds to start: what is changed now is changed before they read."""
    while not exists(job.output.child("_rembert_ray", "plan.parquet")):
        assert driver.process.poll() is None, driver.shown
        time.sleep(0.02)


@pytest.mark.slow
def test_bad_files_are_named_and_all_others_written(job: FaultJob, expected: pa.Table) -> None:
    corpus = job.folder.child("corpus")
    for number in range(N_GOOD, N_FILES):
        delete(corpus.child(f"{number:02d}.parquet"))
    for stem, (make, _) in {**SET_ASIDE, **QUARANTINED}.items():
        upload(corpus.child(f"{stem}.parquet"), make(stem))
    upload(corpus.child("18-vanishes.parquet"), parquet_of(["gone"] * ROWS_PER_SHARD, "18"))
    upload(corpus.child("19-changes.parquet"), parquet_of(["as planned"] * ROWS_PER_SHARD, "19"))
    driver = job.start()
    wait_for_the_plan(job, driver)
    delete(corpus.child("18-vanishes.parquet"))
    upload(corpus.child("19-changes.parquet"), parquet_of(["not planned"] * ROWS_PER_SHARD, "19"))
    assert driver.end() == 3, driver.shown

    rows = job.rows()
    n_good = N_GOOD * ROWS_PER_FILE
    assert_same_rows(rows.slice(0, n_good), expected.slice(0, n_good))
    others = [f"16-corrupt-page-{row}" for row in range(ROWS_PER_FILE) if not 40 <= row < 80]
    assert rows["id"].to_pylist()[n_good:] == others
    assert rows["text"].to_pylist()[n_good:] == [texts_of_file(0)[int(name.rpartition("-")[2])] for name in others]
    assert rows["error"].null_count == len(rows)
    assert not job.is_closed()

    reasons = {stem: reason for stem, (_, reason) in {**SET_ASIDE, **QUARANTINED}.items()}
    reasons |= {"18-vanishes": "the file is gone: restore it", "19-changes": "it changed: "}
    for stem, reason in reasons.items():
        lines = [line for line in driver.shown.splitlines() if f"{corpus}/{stem}.parquet" in line]
        assert any(reason in line for line in lines), (stem, lines)
    names = list_names(job.output.child("_rembert_ray", "quarantine"))
    records = [job.control("_rembert_ray", "quarantine", name) for name in names]
    assert {record["source"] for record in records} == {f"{corpus}/{stem}.parquet" for stem in reasons}
    for record in records:
        assert reasons[record["source"].rpartition("/")[2].removesuffix(".parquet")] in record["reason"]
    assert [name.split("-")[0] for name in names].count("file") == len(SET_ASIDE)
    assert len(names) == len(reasons)

    code, shown = job.run()
    assert code == 2, "what changed may not be mixed with what is there"
    assert f"input file {corpus}/18-vanishes.parquet" in shown
    assert f"input file {corpus}/19-changes.parquet" in shown
