"""What `verify` finds, one thing at a time, on a local disk and on S3; following its advice mends the output."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rembert_ray.verify as verify_module
from rembert_ray.cli import app
from rembert_ray.errors import StorageError, UnusableError
from rembert_ray.plan import Plan, freeze_plan
from rembert_ray.report import status
from rembert_ray.report.findings import Finding, Verification
from rembert_ray.storage.below import names_below
from rembert_ray.storage.commit import Part, commit_part, part_name
from rembert_ray.storage.digest import content_digest
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import Location, delete, locate, read_bytes
from rembert_ray.storage.parquet import encode_parquet, read_footer_values, read_rows
from rembert_ray.storage.put import put_new
from rembert_ray.storage.seal import seal, sealed_json
from rembert_ray.verify import verify
from tests.outputs import (
    FINGERPRINT,
    N_SHARDS,
    close,
    commit_shards,
    finish_output,
    follow,
    plan_of,
    replace_file,
    rows_of,
)
from tests.servers.fault_proxy import Fault as Broken

NAME = part_name(3, FINGERPRINT.digest)


@pytest.fixture
def whole(store: Location) -> tuple[Location, Plan]:
    return finish_output(store)


def found_in(output: Location) -> list[tuple[str, str, str, int | None]]:
    """(kind, name, remedy, shard) of every finding."""
    result = verify(str(output))
    print("\n".join(result.lines()))
    assert result.exit_code == (3 if any(finding.kind != "leftover" for finding in result.findings) else 0)
    return [(finding.kind, finding.name, finding.remedy, finding.shard) for finding in result.findings]


def mend(output: Location, plan: Plan) -> None:
    """Follow the advice: delete, and make the shards again that a run would make."""
    result = verify(str(output))
    follow(output, result.commands("delete"))
    commit_shards(output, plan, result.shards_to_make)
    close(output, plan)
    assert found_in(output) == []


def rewrite(
    output: Location, plan: Plan, rows: pa.Table | None, shard: int = 3, footer: Mapping[str, str] | None = None
) -> None:
    """A shard with other rows or footer values, its seal whole again: what no checksum can tell."""
    location = output.child(part_name(shard, plan.fingerprint.digest))
    values = read_footer_values(location)
    del values["seal"]
    table = read_rows(location, 0, int(values["n_rows"])) if rows is None else rows
    delete(location)
    put_new(location, encode_parquet(table, {**values, **(footer or {})}), {})


def test_a_whole_output_is_good_and_says_what_was_read(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    result = verify(str(output))
    assert (result.exit_code, result.findings, result.is_closed) == (0, [], True)
    assert (result.n_shards, result.n_whole, result.n_rows) == (N_SHARDS, N_SHARDS, plan.n_rows)
    assert result.n_bytes == sum(len(read_bytes(output.child(name))) for name in names_below(output))
    assert list(result.lines())[-1] == "next        nothing to do"


def test_missing_shards_need_only_a_run(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    for shard in (1, 3, 4, 5):
        delete(output.child(part_name(shard, plan.fingerprint.digest)))
    assert [(kind, remedy, shard) for kind, _, remedy, shard in found_in(output)] == [
        ("missing", "run", shard) for shard in (1, 3, 4, 5)
    ]
    lines = list(verify(str(output)).lines())
    assert "missing     4 shards: 1, 3 to 5" in lines
    assert not any(line.startswith("delete") for line in lines)
    mend(output, plan)


def test_why_a_shard_was_given_up_is_said(whole: tuple[Location, Plan]) -> None:
    output, _ = whole
    delete(output.child(NAME))
    status.quarantine(output, "shard-00000003", {"shard": 3, "reason": "corrupt page", "run": "r1"})
    lines = list(verify(str(output)).lines())
    assert f"missing     {NAME}: given up by run r1: corrupt page" in lines


def test_damaged_objects_are_deleted_and_made_again(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    changes: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("truncated", lambda data: data[: len(data) // 2]),
        ("truncated", lambda data: b""),
        ("truncated", lambda data: data[:-1]),
        ("altered", lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]),
        ("altered", lambda data: b"PAR1" + bytes(1000) + b"PAR1"),
        ("altered", lambda data: data[:4] + data),
    ]
    names = [part_name(shard, plan.fingerprint.digest) for shard in range(len(changes))]
    for name, (_, change) in zip(names, changes, strict=True):
        replace_file(output.child(name), change(read_bytes(output.child(name))))
    whats = [finding.what for finding in verify(str(output)).findings]
    assert [what.startswith(("its sha256 is ", "it carries no seal")) for what in whats] == [False] * 3 + [True] * 3
    kinds = (kind for kind, _ in changes)
    assert found_in(output) == [(kind, names[shard], "delete", shard) for shard, kind in enumerate(kinds)]
    mend(output, plan)


def test_rows_that_are_not_those_of_the_digest(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    rows = rows_of(plan.shard(3))
    rewrite(output, plan, rows.take(np.arange(rows.num_rows)[::-1]))
    (finding,) = verify(str(output)).findings
    assert (finding.kind, finding.what) == ("altered", "its rows are not those that its footer has the digest of")
    mend(output, plan)


def test_rows_that_are_too_few(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    rows = rows_of(plan.shard(3)).slice(1)
    rewrite(output, plan, rows, footer={"content_digest": content_digest(rows)})
    (finding,) = verify(str(output)).findings
    assert finding.what == f"it has {rows.num_rows} rows, its footer says {rows.num_rows + 1}"


def test_each_field_of_the_identity_counts(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    keys = ["source", "row_start", "plan_id", "fingerprint", "shard", "n_rows"]
    for number, key in enumerate(keys):
        rewrite(output, plan, None, number, {key: "99"})
    for key, finding in zip(keys, verify(str(output)).findings, strict=True):
        assert f"its footer says {key} '99' instead of" in finding.what
        assert (finding.kind == "foreign") == (key == "plan_id")
    mend(output, plan)


def test_a_page_that_disagrees_with_its_checksum_under_a_good_seal(whole: tuple[Location, Plan]) -> None:
    output, _ = whole
    data = bytearray(read_bytes(output.child(NAME)))
    column = pq.read_metadata(pa.BufferReader(bytes(data))).row_group(0).column(0)
    data[column.data_page_offset + 40] ^= 1
    start = bytes(data).rfind(b"sha256-of-this-file:") + 20
    data[start : start + 64] = b"0" * 64
    replace_file(output.child(NAME), seal(bytes(data)))
    (finding,) = verify(str(output)).findings
    assert finding.what.startswith("its seal holds, but ")
    assert "CRC checksum verification failed" in finding.what


def test_metadata_of_an_object_that_disagree(s3_folder: Location) -> None:
    output, _ = finish_output(s3_folder)
    location = output.child(NAME)
    bucket, _, key = location.path.partition("/")
    data = read_bytes(location)
    for metadata in ({"rows": "9"}, {"sha256": "0" * 64, "rows": "8"}, {"attempt": "another"}):
        location.filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, Metadata=metadata)
        (finding,) = verify(str(output)).findings
        assert f"the metadata of the object disagree in {next(iter(metadata))}" in finding.what
    location.filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data)
    assert found_in(output) == [], "a copy that lost its metadata is whole"


def test_a_shard_under_two_names(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    copies = ["a copy.parquet", part_name(3, plan.fingerprint.digest).replace("00000003", "000000003"), "x/y/z.parquet"]
    for name in copies:
        put_new(output.child(name), read_bytes(output.child(NAME)))
    assert sorted(found_in(output)) == sorted(("duplicated", name, "delete", None) for name in copies)
    mend(output, plan)


def test_a_shard_in_the_place_of_another(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    other = part_name(2, plan.fingerprint.digest)
    replace_file(output.child(NAME), read_bytes(output.child(other)))
    assert found_in(output) == [("duplicated", NAME, "delete", 3)]
    mend(output, plan)


def test_what_is_not_ours_is_to_be_looked_at(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    rows = rows_of(plan.shard(0))
    good = Part(0, "abcdef", "p", "s", 0, rows.num_rows, "a")
    commit_part(output, good, rows, {})
    names = [
        good.name,
        part_name(N_SHARDS, plan.fingerprint.digest),
        "notes.txt",
        ".hidden",
        "_rembert_ray/x",
        "p.parquet",
    ]
    names += ["_rembert_ray/quarantine/deep/status.json", "it's $(here).parquet"]
    for name in names[1:]:
        put_new(output.child(name), b"text")
    assert sorted(found_in(output)) == sorted(("foreign", name, "look", None) for name in names)
    result = verify(str(output))
    assert result.commands("delete") == []
    follow(output, result.commands("look"))
    assert found_in(output) == []


def test_leftovers_are_for_gc(whole: tuple[Location, Plan]) -> None:
    output, _ = whole
    names = [
        ".tmp-part-1",
        "_rembert_ray/.tmp-x",
        "_rembert_ray/quarantine/.tmp-x",
        "_rembert_ray/probe-0123456789abcdef",
    ]
    for name in names:
        put_new(output.child(name), b"")
    assert sorted(found_in(output)) == sorted(("leftover", name, "gc", None) for name in names)
    assert list(verify(str(output)).lines())[-1].endswith(f"rembert-ray gc {output} --older-than 0")
    assert verify(str(output)).exit_code == 0, "nothing that is read is wrong"
    assert CliRunner().invoke(app, ["gc", str(output), "--older-than", "0"]).exit_code == 0
    assert found_in(output) == []


@pytest.mark.parametrize(
    "change", [lambda data: b"", lambda data: data[:-30], lambda data: data.replace(b"run", b"ruN")]
)
def test_damaged_control_files(whole: tuple[Location, Plan], change: Callable[[bytes], bytes]) -> None:
    output, plan = whole
    names = [name for name in names_below(output) if not name.endswith(".parquet")]
    assert len(names) == 4
    for name in names:
        data = read_bytes(output.child(name))
        replace_file(output.child(name), change(data) if change(data) != data else data + b" ")
    assert sorted(found_in(output)) == [("damaged", name, "delete", None) for name in names]
    mend(output, plan)


def test_a_control_file_without_a_seal_is_reported_and_still_read(whole: tuple[Location, Plan]) -> None:
    output, _ = whole
    replace_file(output.child("_rembert_ray", "status.json"), b'{"state": "done"}')
    assert status.read(output) == {"state": "done"}
    (finding,) = verify(str(output)).findings
    assert finding.what == "it carries no seal"


def test_a_damaged_plan_leaves_the_parts_to_be_checked(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    location = output.child("_rembert_ray", "plan.parquet")
    data = read_bytes(location)
    replace_file(location, data[:70] + bytes([data[70] ^ 4]) + data[71:])
    replace_file(output.child(NAME), read_bytes(output.child(NAME))[:-9])
    found = [("damaged", "_rembert_ray/plan.parquet", "delete", None), ("truncated", NAME, "delete", 3)]
    assert found_in(output) == found
    follow(output, verify(str(output)).commands("delete"))
    assert found_in(output) == [("missing", "_rembert_ray/plan.parquet", "run", None)]
    freeze_plan(output, plan)
    assert found_in(output) == [("missing", NAME, "run", 3)]


def test_a_plan_whose_lines_were_changed_and_sealed_again(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    moved = plan.shards.set_column(2, "row_start", pc.add(plan.shards["row_start"], 1))
    replace_file(output.child("_rembert_ray", "plan.parquet"), replace(plan, shards=moved).to_bytes())
    assert ("altered", "_rembert_ray/plan.parquet", "delete", None) in found_in(output)


def test_success_that_is_missing_or_says_something_else(whole: tuple[Location, Plan]) -> None:
    output, plan = whole
    location = output.child("_SUCCESS")
    replace_file(location, sealed_json({"plan": plan.plan_id, "shards": 8}))
    assert found_in(output) == [("altered", "_SUCCESS", "delete", None)]
    delete(location)
    status.write(output, {"state": "incomplete", "exit_code": 3})
    (finding,) = verify(str(output)).findings
    assert (finding.kind, finding.remedy) == ("unclosed", "run")
    assert finding.what == "not there; the last run ended as 'incomplete' with exit code 3"
    mend(output, plan)


@pytest.mark.parametrize(
    ("column", "what"),
    [("error", "error large_string instead of string"), ("number", "number int32 instead of int64")],
)
def test_a_schema_that_differs(whole: tuple[Location, Plan], column: str, what: str) -> None:
    output, plan = whole
    rows = rows_of(plan.shard(3))
    kind = pa.large_string() if column == "error" else pa.int32()
    rows = rows.set_column(rows.schema.get_field_index(column), column, rows[column].cast(kind))
    rewrite(output, plan, rows, footer={"content_digest": content_digest(rows)})
    (finding,) = verify(str(output)).findings
    assert (finding.kind, finding.shard, what in finding.what) == ("altered", 3, True)
    mend(output, plan)


def test_kept_columns_are_those_of_the_plan_also_when_all_objects_agree(store: Location) -> None:
    output, plan = store.child("out"), plan_of(store.child("corpus"))
    freeze_plan(output, plan)
    commit_shards(output, plan, range(N_SHARDS))
    for shard in range(N_SHARDS):
        rows = rows_of(plan.shard(shard)).rename_columns(["id", "embedding", "entities", "error"])
        rewrite(output, plan, rows, shard, {"content_digest": content_digest(rows)})
    close(output, plan)
    assert [shard for _, _, _, shard in found_in(output)] == list(range(N_SHARDS))
    mend(output, plan)


def test_while_a_run_is_going_on_what_is_missing_is_not_there_yet(store: Location) -> None:
    output, plan = store.child("out"), plan_of(store.child("corpus"))
    with Lease.acquire(output, LeaseOwner.this_process("r7"), heartbeat=False):
        assert verify(str(output)).exit_code == 75
        freeze_plan(output, plan)
        commit_shards(output, plan, (0, 2))
        put_new(output.child(".tmp-part-00000003"), b"half")
        result = verify(str(output))
        assert (result.exit_code, result.n_not_yet, result.n_whole, result.findings) == (75, N_SHARDS - 2, 2, [])
        lines = list(result.lines())
        assert any(line.startswith("running     run r7 (process") for line in lines)
        assert lines[-1] == f"next        when the run has ended: rembert-ray verify {output}"
        commit_shards(output, plan, range(N_SHARDS))
        assert verify(str(output)).exit_code == 75, "not closed yet"
        replace_file(output.child(part_name(2, plan.fingerprint.digest)), b"")
        assert verify(str(output)).exit_code == 3
    delete(output.child(part_name(4, plan.fingerprint.digest)))
    assert {kind for kind, *_ in found_in(output)} == {"truncated", "missing", "leftover"}


def test_a_lease_that_was_left_behind_is_no_run(store: Location) -> None:
    output, plan = store.child("out"), plan_of(store.child("corpus"))
    freeze_plan(output, plan)
    dead = LeaseOwner("elsewhere", 1, "r8")
    Lease.acquire(output, dead, stale_after_s=-1, heartbeat=False)
    assert len(verify(str(output)).findings) == N_SHARDS


def test_a_part_that_goes_away_meanwhile(whole: tuple[Location, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    output, _ = whole
    names = [*names_below(output), "_rembert_ray/lease-000009"]
    delete(output.child(NAME))
    monkeypatch.setattr(verify_module, "names_below", lambda location: names)
    assert found_in(output) == [("missing", NAME, "run", 3)]


def test_a_store_that_refuses_is_no_damage(faults: Any, s3_folder: Location) -> None:
    """Wrong credentials must not lead to the advice to delete everything."""
    output, _ = finish_output(s3_folder)
    faults.faults.append(Broken(f"^GET .*{NAME}", -1, "status:403"))
    with pytest.raises(StorageError, match="permission denied"):
        verify(str(output))


def test_no_output_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="nothing there"):
        verify(str(tmp_path / "none"))


def test_odd_names_are_shown_and_deleted_as_they_are(tmp_path: Path) -> None:
    output, _ = finish_output(locate(str(tmp_path)))
    odd = [b"a\nb\x1b[31m", b"not \xff UTF-8", "é ü".encode(), b"$HOME `ls` 'x'"]
    for name in odd:
        (Path(os.fsdecode(output.path.encode())) / os.fsdecode(name)).write_bytes(b"")
    (tmp_path / "out" / "linked").symlink_to(tmp_path / "corpus")
    result = CliRunner().invoke(app, ["verify", str(output)])
    assert result.exit_code == 3
    assert "\x1b" not in result.stdout
    commands = [line.split(": ", 1)[1] for line in result.stdout.splitlines() if line.startswith("not ours")]
    assert len(commands) == len(odd) + 1
    for command in commands:
        assert subprocess.run(["bash", "-c", command], check=False).returncode == 0
    assert verify(str(output)).exit_code == 0
    assert len(list((tmp_path / "corpus").iterdir())) == 3, "the link was deleted, not what it leads to"


def test_json_says_the_same(whole: tuple[Location, Plan]) -> None:
    output, _ = whole
    assert CliRunner().invoke(app, ["verify", str(output)]).exit_code == 0
    replace_file(output.child(NAME), b"")
    result = CliRunner().invoke(app, ["verify", str(output), "--json"])
    assert result.exit_code == 3
    values = json.loads(result.stdout)
    assert (values["exit_code"], values["shards_to_make"]) == (3, [3])
    assert values["findings"] == [
        {"kind": "truncated", "name": NAME, "what": values["findings"][0]["what"], "remedy": "delete", "shard": 3}
    ]
    follow(output, values["commands"]["delete"])
    assert NAME not in names_below(output)


def test_long_lists_of_shards_are_short() -> None:
    findings = [Finding("missing", f"p{n}", "", "run", n) for n in (0, 1, 2, 7, 9, 10)]
    lines = list(Verification(locate("/out"), findings=findings, n_shards=20, plan_id="p").lines())
    assert "missing     6 shards: 0 to 2, 7, 9 to 10" in lines
    assert lines[-1].startswith("next        run the job's command again: it makes 6 shards: 0 to 2, 7, 9 to 10")
