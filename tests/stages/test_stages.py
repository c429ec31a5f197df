"""A shard from Parquet to Parquet, through the real stages with a random model: rows, errors, windows, failures."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rembert_ray.errors import ShardError, StorageError
from rembert_ray.plan import Shard
from rembert_ray.report.tally import PHASES
from rembert_ray.stages import inputs
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope, run_stage, seal, unseal
from rembert_ray.stages.infer import NOT_A_NUMBER, Infer
from rembert_ray.stages.inputs import LARGEST_ROW_BYTES, arrow_type, cast_input, read_inputs
from rembert_ray.stages.write import Write
from rembert_ray.storage.parquet import read_footer_values
from tests.conftest import DATA, write_corpus
from tests.stages.conftest import run_shard

NAUGHTY = json.loads((DATA / "blns.json").read_text())


def invalid_utf8(values: list[bytes | None]) -> pa.Array:
    """A string column with bytes that are no UTF-8, as broken writers make them."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers(), binary.null_count)


def test_naughty_strings_each_have_a_defined_result(short_model_folder, spec_for, tmp_path):
    texts = [*NAUGHTY, None, "", " ", "\n\t", "\x00", "a\x00b", "x" * 50_000, "\ufeff", "e\u0301" * 300, "👩‍👩‍👧‍👦"]
    path = write_corpus(tmp_path / "in.parquet", texts)
    receipt, rows = run_shard(spec_for(short_model_folder, aggregation="none", ignore_labels=[]), path)
    assert receipt.facts["n_rows"] == rows.num_rows == len(texts)
    assert rows["id"].to_pylist() == [f"in-{index}" for index in range(len(texts))]
    for text, row in zip(texts, rows.to_pylist(), strict=True):
        if text is None:
            assert row["error"] == "text is null"
            assert row["entities"] is None
            assert row["n_windows"] == 0
            continue
        assert row["error"] is None
        assert row["truncated"] is False
        assert row["n_windows"] >= 1
        assert all(text[entity["start"] : entity["end"]] == entity["word"] for entity in row["entities"])
        assert len(row["entities"]) <= row["n_tokens"]
    assert receipt.facts["n_errors"] == 1


def test_invalid_utf8_is_an_error_of_its_row_only():
    array = invalid_utf8([b"good", b"\xed\xa0\x80lone", None, b"ab\xff", "né".encode()])
    column = pa.chunked_array([array.cast(pa.large_string())])
    values, errors = read_inputs({"text": column})
    assert values == {"text": ["good", "", "", "", "né"]}
    assert errors == [
        None,
        "text is not valid UTF-8 at byte 0",
        "text is null",
        "text is not valid UTF-8 at byte 2",
        None,
    ]
    lists = pa.LargeListArray.from_arrays(pa.array([0, 1, 3, 3, 4, 5], pa.int64()), array.cast(pa.large_string()))
    values, errors = read_inputs({"words": pa.chunked_array([lists]), "text": column})
    assert values["words"] == [["good"], [], [], [], ["né"]]
    assert errors[1:4] == [
        "words[0] is not valid UTF-8 at byte 0",
        "text is null",
        "words[0] is not valid UTF-8 at byte 2",
    ]


def test_a_shard_of_nothing_but_bad_rows_is_written(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", [None, None, None])
    for options in ({"task": "tag"}, {"task": "embed"}):
        receipt, rows = run_shard(spec_for(model_folder, **options), path)
        assert rows["error"].to_pylist() == ["text is null"] * 3
        assert receipt.facts["n_errors"] == 3


@pytest.mark.parametrize("task", ["tag", "embed"])
def test_rows_do_not_depend_on_their_neighbours_or_the_budget(short_model_folder, spec_for, tmp_path, task):
    texts = [text for text in NAUGHTY if text][:60] + ["in the sky up above " * 30, "short"]
    path = write_corpus(tmp_path / "in.parquet", texts)
    spec = spec_for(short_model_folder, task=task)
    _, whole = run_shard(spec, path)
    small = Infer(spec)
    small.engine.batch_tokens = 30
    pieces = []
    for start in range(0, len(texts), 7):
        part = spec_for(short_model_folder, task=task)
        (tmp_path / f"piece{start}").mkdir()
        stages = (Encode(part), small, Write(part))
        pieces.append(run_shard(part, path, min(7, len(texts) - start), start, stages)[1])
    pieces = pa.concat_tables(pieces)
    assert pieces.drop_columns([pieces.column_names[1]]).equals(whole.drop_columns([whole.column_names[1]]))
    if task == "tag":
        for ours, theirs in zip(pieces["entities"].to_pylist(), whole["entities"].to_pylist(), strict=True):
            assert [(e["entity_group"], e["start"], e["end"]) for e in ours] == [
                (e["entity_group"], e["start"], e["end"]) for e in theirs
            ]
    else:
        np.testing.assert_allclose(
            np.array(pieces["embedding"].to_pylist()), np.array(whole["embedding"].to_pylist()), atol=1e-5
        )


def test_the_object_says_what_it_is(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["one", "two", "three"])
    spec = spec_for(model_folder)
    receipt, rows = run_shard(spec, path, n_rows=2, row_start=1)
    assert rows.schema.remove_metadata().equals(spec.schema)
    footer = pq.read_metadata(spec.output.child(receipt.facts["object"]).path).metadata
    values = {key.decode(): value.decode() for key, value in footer.items()}
    assert values["rembert_ray.source"] == str(path)
    assert (values["rembert_ray.row_start"], values["rembert_ray.n_rows"]) == ("1", "2")
    assert values["rembert_ray.fingerprint"] == "abc123"
    assert float(values["rembert_ray.infer_s"]) >= 0
    assert {"rembert_ray.version_torch", "rembert_ray.n_tokens", "rembert_ray.attempt"} <= values.keys()


def test_fewer_rows_than_planned_are_never_committed(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["one", "two", "three"])
    spec = spec_for(model_folder)
    receipt, _ = run_shard(spec, path, n_rows=5)
    assert "3 rows" in receipt.failure or "planned 5" in receipt.failure
    encoded = Encode(spec)(seal([Envelope(Shard(0, str(path), 0, 3, {}, "plan"))]))
    (envelope,) = unseal(Infer(spec)(encoded))
    envelope.table = envelope.table.slice(0, 2)
    (receipt,) = unseal(Write(spec)(seal([envelope])))
    assert "2 rows instead of 3" in receipt.failure
    assert not spec.output.filesystem.exists(spec.output.path)


def test_another_file_of_as_many_rows_is_not_the_one_that_was_planned(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["one", "two", "three"])
    spec = spec_for(model_folder)
    status = path.stat()
    shard = Shard(0, str(path), 0, 3, {}, "plan", status.st_size, str(status.st_mtime_ns))
    (envelope,) = unseal(Encode(spec)(seal([Envelope(shard)])))
    assert envelope.failure is None
    assert envelope.table.num_rows == 3
    write_corpus(path, ["one", "two", "other"])
    (envelope,) = unseal(Encode(spec)(seal([Envelope(shard)])))
    assert str(path) in envelope.failure
    assert "it changed" in envelope.failure


def test_a_text_of_gigabytes_is_an_error_of_its_row_only(short_model_folder, spec_for, tmp_path):
    texts = ["in the sky", "x" * (LARGEST_ROW_BYTES + 1), "up above", "ü" * (LARGEST_ROW_BYTES // 2 + 1)]
    _, rows = run_shard(spec_for(short_model_folder), write_corpus(tmp_path / "in.parquet", texts))
    assert rows["id"].to_pylist() == ["in-0", "in-1", "in-2", "in-3"]
    assert rows["error"].to_pylist() == [
        None,
        "text has 16,777,217 bytes, more than 16,777,216",
        None,
        "text has 16,777,218 bytes, more than 16,777,216",
    ]


def test_a_list_of_millions_is_an_error_of_its_row_and_many_of_them_of_their_shard(monkeypatch):
    lists = pa.chunked_array([pa.array([["a", "b"], None, ["c"] * 300_000, ["d" * 50, None]], arrow_type("words"))])
    values, errors = read_inputs({"words": lists})
    assert values["words"] == [["a", "b"], [], [], []]
    assert errors == [None, "words is null", "words has 19,500,000 bytes, more than 16,777,216", "words[1] is null"]
    assert cast_input("words", lists.cast(pa.list_(pa.string()))).equals(lists)
    monkeypatch.setattr(inputs, "LARGEST_TABLE_BYTES", 1_000_000)
    with pytest.raises(ShardError, match="words has 300,004 items in 4 rows: use smaller shards"):
        cast_input("words", lists)


def test_text_is_tokenized_in_pieces_with_the_same_result(short_model_folder, spec_for, tmp_path, monkeypatch):
    texts = [*NAUGHTY, None, "", "in the sky up above " * 30]
    path = write_corpus(tmp_path / "in.parquet", texts)
    shard = Shard(0, str(path), 0, len(texts), {}, "plan")
    encode = Encode(spec_for(short_model_folder))
    set_aside = {3: "it ended a process", len(texts) - 1: "so did this one"}
    (whole,) = unseal(encode(seal([Envelope(shard, set_aside=set_aside)])))
    monkeypatch.setattr(inputs, "PIECE_BYTES", 100)
    (pieces,) = unseal(encode(seal([Envelope(shard, set_aside=set_aside)])))
    assert pieces.table.column(0).num_chunks > 50
    assert pieces.table.equals(whole.table)
    assert whole.table["rembert_ray.error"][3].as_py() == "it ended a process"
    monkeypatch.setattr("rembert_ray.stages.encode.LARGEST_TABLE_BYTES", 1000)
    (refused,) = unseal(encode(seal([Envelope(shard)])))
    assert "rows have tokens of more than 1000 bytes: use smaller shards" in refused.failure


def test_a_corrupt_page_fails_its_shard_and_names_the_file(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["some words here"] * 500, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    receipt, rows = run_shard(spec_for(model_folder), path)
    assert rows is None
    assert str(path) in receipt.failure


def test_values_that_are_not_numbers_become_row_errors(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["in the sky", "poison up above", "", "here"])
    spec = spec_for(model_folder, task="embed")
    encode, infer = Encode(spec), Infer(spec)
    (poison,) = encode.tokenizer.encode_batch(["poison"], add_special_tokens=False).ids[-1:]
    whole = infer.engine.encoder

    class Overflowing:
        def encode(self, ids, *arguments, **named):
            hidden = whole.encode(ids, *arguments, **named)
            return torch.where((ids == int(poison))[:, None], torch.nan, hidden)

    infer.engine.encoder = Overflowing()
    _, rows = run_shard(spec, path, stages=(encode, infer, Write(spec)))
    assert rows["error"].to_pylist() == [None, NOT_A_NUMBER, None, None]
    assert [vector is None for vector in rows["embedding"].to_pylist()] == [False, True, False, False]


def test_equal_texts_are_computed_once(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["the same words"] * 40 + ["other words"])
    receipt, rows = run_shard(spec_for(model_folder, aggregation="first", ignore_labels=[]), path)
    assert receipt.facts["n_windows_computed"] == 2
    assert receipt.facts["n_windows"] == 41
    assert len({json.dumps(row) for row in rows["entities"].to_pylist()[:40]}) == 1


def test_a_receipt_tells_when_each_stage_began(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["one", "two"])
    spec = spec_for(model_folder)
    receipt, _ = run_shard(spec, path)
    began = [datetime.fromisoformat(receipt.facts[f"{phase}_at"]) for phase in PHASES]
    assert began == sorted(began)
    footer = read_footer_values(spec.output.child(receipt.facts["object"]))
    assert footer["infer_at"] == receipt.facts["infer_at"]


def test_unexpected_errors_fail_the_shard_and_job_errors_end_the_job():
    sealed = seal([Envelope(Shard(3, "x", 0, 1, {}, "p")), Envelope(Shard(4, "x", 1, 1, {}, "p"), failure="before")])

    def broken(envelope):
        raise KeyError("what nobody thought of")

    first, second = unseal(run_stage(sealed, broken))
    assert first.failure == "unexpected: KeyError: 'what nobody thought of'"
    assert second.failure == "before"

    def refused(envelope):
        raise ShardError("cannot read")

    assert unseal(run_stage(sealed, refused))[0].failure == "cannot read"

    def gave_out(envelope):
        raise StorageError("no store")

    with pytest.raises(StorageError):
        run_stage(sealed, gave_out)


def test_hive_partition_values_become_columns(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["one", "two"])
    spec = spec_for(model_folder, keep=("id", "lang"))
    shard = Shard(0, str(path), 0, 2, {"lang": "pt-BR"}, "plan")
    (envelope,) = unseal(Encode(spec)(seal([Envelope(shard)])))
    assert envelope.table["lang"].to_pylist() == ["pt-BR", "pt-BR"]


def test_a_kept_column_can_have_another_name_in_the_output(model_folder, spec_for, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["in the sky", None, "here"])
    spec = replace(spec_for(model_folder), renamed={"id": "entities_of"})
    _, rows = run_shard(spec, path)
    assert rows.column_names[:2] == ["entities_of", "entities"]
    assert rows["entities_of"].to_pylist() == ["in-0", "in-1", "in-2"]
