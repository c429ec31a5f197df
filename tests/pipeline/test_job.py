"""Whole jobs on Ray with a tiny random model: rows, resume, refusals, quarantine, the lease."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rembert_ray.errors import LeaseHeldError, UnusableError
from rembert_ray.job import run
from rembert_ray.report import status
from rembert_ray.report.narration import Narrator
from rembert_ray.report.run_record import read_record
from rembert_ray.report.watch import look_at
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import locate
from tests.conftest import write_corpus, write_manifest

pytestmark = pytest.mark.usefixtures("ray_session")

WORDS = [
    "in",
    "the",
    "sky",
    "up",
    "above",
    "the",
    "house",
    "on",
    "the",
    "hill",
    "there",
    "was",
    "a",
    "light",
    "that",
    "no",
    "one",
    "saw",
]


def texts(n, seed):
    return [" ".join(WORDS[(seed + i * k) % len(WORDS)] for k in range(1, 2 + (seed * 7 + i) % 40)) for i in range(n)]


@pytest.fixture
def corpus(tmp_path):
    """Five files in two Hive partitions, with null and blank rows among them."""
    folder = tmp_path / "corpus"
    for seed, part in enumerate(["language=de/a", "language=de/b", "language=fr/a", "language=fr/b", "language=fr/c"]):
        rows = texts(60, seed)
        rows[7], rows[8], rows[9] = None, "", " \n"
        write_corpus(folder / f"{part}.parquet", rows, row_group_size=20, write_page_checksum=True)
    return folder


@pytest.fixture
def manifest(corpus, short_model_folder, tmp_path):
    return write_manifest(
        tmp_path,
        f"""
task: tag
model: {short_model_folder}
input: {{path: corpus, keep: [id, language]}}
output: {{path: out}}
head: {{aggregation: none, ignore_labels: []}}
text: {{overlap: 4}}
sharding: {{rows: 25}}
limits: {{attempts: 2}}
""",
    )


def run_quietly(manifest, *overrides):
    """(exit code, what the terminal showed)."""
    stream = io.StringIO()
    code = run(manifest, overrides, Narrator(Console(file=stream, width=200)))
    return code, stream.getvalue()


def rows_of(output: Path) -> pa.Table:
    parts = sorted(output.glob("part-*.parquet"))
    return pa.concat_tables([pq.ParquetFile(part).read() for part in parts])


def parts_of(output: Path) -> dict[str, int]:
    return {part.name: part.stat().st_mtime_ns for part in output.glob("part-*.parquet")}


def test_a_job_writes_every_row_once_in_order_and_does_nothing_when_run_again(manifest, corpus, tmp_path):
    code, shown = run_quietly(manifest)
    assert code == 0
    assert "rows        300 in this run, 5 with an error value" in shown
    assert shown.rstrip().splitlines()[-1].startswith("next        rembert-ray sample")
    output = tmp_path / "out"
    rows = rows_of(output)
    expected = ds.dataset(corpus, partitioning="hive").to_table()
    assert rows["id"].to_pylist() == expected["id"].to_pylist()
    assert rows["language"].to_pylist() == expected["language"].to_pylist()
    for text, row in zip(expected["text"].to_pylist(), rows.to_pylist(), strict=True):
        assert (row["error"] is None) == (text is not None)
        if text:
            assert all(text[e["start"] : e["end"]] == e["word"] for e in row["entities"])
    footers = [pq.read_metadata(part).metadata for part in output.glob("part-*.parquet")]
    places = {(footer[b"rembert_ray.encoded_at"], footer[b"rembert_ray.inferred_at"]) for footer in footers}
    assert all(encoded != inferred for encoded, inferred in places), "tokenizing has a process of its own"
    success = json.loads((output / "_SUCCESS").read_text())
    assert success["rows_in"] == success["rows_out"] == 300
    before = parts_of(output)
    code, shown = run_quietly(manifest)
    assert code == 0
    assert "nothing to do" in shown
    assert parts_of(output) == before
    assert pq.read_table(output).num_rows == 300, "control files must not look like data"


def test_resume_makes_only_what_is_missing_and_the_same_rows(manifest, tmp_path):
    run_quietly(manifest)
    output = tmp_path / "out"
    whole, before = rows_of(output), parts_of(output)
    for name in sorted(before)[1:9:3]:
        (output / name).unlink()
    (output / "_SUCCESS").unlink()
    status.quarantine(locate(str(output)), "shard-00000001", {"reason": "an earlier run gave it up"})
    code, shown = run_quietly(manifest)
    assert code == 0
    assert not list((output / "_rembert_ray" / "quarantine").iterdir()), "the shard is there now"
    assert f"{len(before) - 3} shards are there already" in shown
    assert rows_of(output).equals(whole)
    after = parts_of(output)
    assert sum(after[name] != before[name] for name in before) == 3


def test_the_plan_and_the_rows_do_not_depend_on_the_workers(manifest, tmp_path):
    run_quietly(manifest)
    code, _ = run_quietly(
        manifest,
        "output.path=" + str(tmp_path / "other"),
        "resources.actors=2",
        "resources.encoders=1",
        "resources.cpus_per_actor=0.5",
        "resources.batch_tokens=64",
    )
    assert code == 0
    assert [p.name for p in sorted((tmp_path / "other").glob("part-*"))] == sorted(parts_of(tmp_path / "out"))
    one, other = rows_of(tmp_path / "out"), rows_of(tmp_path / "other")
    assert one.drop_columns("entities").equals(other.drop_columns("entities"))
    for ours, theirs in zip(one["entities"].to_pylist(), other["entities"].to_pylist(), strict=True):
        assert [(e["entity_group"], e["start"]) for e in ours or []] == [
            (e["entity_group"], e["start"]) for e in theirs or []
        ]


def test_a_used_output_refuses_a_changed_manifest_or_input_and_says_what_changed(manifest, corpus, tmp_path):
    run_quietly(manifest)
    with pytest.raises(UnusableError) as error:
        run_quietly(manifest, "head.aggregation=first", "text.overlap=5")
    assert "head.aggregation: 'none' -> 'first'" in str(error.value)
    assert "text.overlap: 4 -> 5" in str(error.value)
    write_corpus(corpus / "language=de" / "b.parquet", texts(60, 9))
    write_corpus(corpus / "language=de" / "new.parquet", texts(3, 9))
    with pytest.raises(UnusableError) as error:
        run_quietly(manifest)
    assert "language=de/b.parquet" in str(error.value)
    assert "language=de/new.parquet: (not there) ->" in str(error.value)
    assert run_quietly(manifest, "output.path=" + str(tmp_path / "fresh"))[0] == 0


def test_a_corrupt_page_costs_its_shard_only(manifest, corpus, tmp_path):
    path = corpus / "language=fr" / "b.parquet"
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[column.dictionary_page_offset + 40] ^= 0xFF
    path.write_bytes(data)
    code, shown = run_quietly(manifest)
    assert code == 3
    assert str(path) in shown
    output = tmp_path / "out"
    assert not (output / "_SUCCESS").exists()
    (record,) = [json.loads(p.read_text()) for p in (output / "_rembert_ray" / "quarantine").iterdir()]
    assert record["source"] == str(path)
    assert len(rows_of(output)) == 300 - record["n_rows"]
    assert json.loads((output / "_rembert_ray" / "status.json").read_text())["exit_code"] == 3


def test_too_many_row_errors_end_with_exit_code_3(manifest, tmp_path):
    code, shown = run_quietly(manifest, "limits.errors=0.01")
    assert code == 3
    assert "over budget 1.67% of rows have an error, limits.errors is 1.00%" in shown
    code, shown = run_quietly(manifest, "limits.errors=0.01")
    assert code == 3, "the errors of the run before count"
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run_quietly(manifest, "limits.errors=0.02")[0] == 0
    assert len(rows_of(tmp_path / "out")) == 300


def test_a_second_run_is_refused_while_the_first_holds_the_lease(manifest, tmp_path):
    with Lease.acquire(locate(str(tmp_path / "out")), LeaseOwner.this_process("other")):
        with pytest.raises(LeaseHeldError, match="run other"):
            run_quietly(manifest)
    assert run_quietly(manifest)[0] == 0


def test_embeddings_are_read_by_plain_readers(manifest, tmp_path):
    import duckdb

    overrides = ("task=embed", "head={dtype: float16}", "output.path=" + str(tmp_path / "vectors"))
    assert run_quietly(manifest, *overrides)[0] == 0
    query = f"SELECT count(*), count(embedding), min(len(embedding)) FROM '{tmp_path}/vectors/part-*.parquet'"
    assert duckdb.sql(query).fetchall() == [(300, 295, 32)]
    assert pq.read_table(tmp_path / "vectors").schema.field("embedding").type == pa.list_(
        pa.field("element", pa.float16()), 32
    )


def test_a_report_lies_beside_the_output_and_a_closed_gate_withholds_success(manifest, corpus, tmp_path):
    assert run_quietly(manifest)[0] == 0
    record = read_record(locate(str(tmp_path / "out")), "x")
    assert record is not None
    assert record.outcome.exit_code == 0
    assert record.outcome.sentence.startswith("All 300 rows are there, 5 of them with an error")
    assert (tmp_path / "out/_rembert_ray/report.html").read_text().startswith("<!doctype html>")
    # Every text of the next night is one word.
    for path in corpus.rglob("*.parquet"):
        write_corpus(path, ["light"] * 60)
    gate = ("output.path=" + str(tmp_path / "night"), "drift.against=" + str(tmp_path / "out"), "drift.gate=true")
    code, shown = run_quietly(manifest, *gate)
    assert code == 3
    assert "withheld    there is no _SUCCESS: drift.gate is closed" in shown
    assert "drift.gate=false" in shown.splitlines()[-1]
    assert not (tmp_path / "night/_SUCCESS").exists()
    standing = look_at(str(tmp_path / "night"))
    assert (standing.exit_code, standing.next_command[:7]) == (3, "look at")
    assert "drift.gate withholds _SUCCESS" in "\n".join(standing.lines())
    parts = parts_of(tmp_path / "night")
    assert run_quietly(manifest, *gate)[0] == 3, "it stays closed"
    code, shown = run_quietly(manifest, *gate, "drift.gate=false")
    assert code == 0
    assert "drift       drift against" in shown
    assert parts_of(tmp_path / "night") == parts
    assert (tmp_path / "night/_SUCCESS").exists()


def test_a_gate_with_nothing_to_compare_with_is_refused_before_anything_starts(manifest, tmp_path):
    with pytest.raises(UnusableError, match="has no record of a run"):
        run(str(manifest), ("drift.against=" + str(tmp_path / "nothing"), "drift.gate=true"))
    assert not (tmp_path / "out/_rembert_ray/plan.parquet").exists()
