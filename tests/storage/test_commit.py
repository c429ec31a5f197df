"""The exactly-once commit, on a quiet store and on one that loses replies."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rembert_ray.errors import ShardError, StorageError, UnusableError
from rembert_ray.storage import s3
from rembert_ray.storage.commit import (
    Part,
    commit_part,
    confirm_parts,
    list_parts,
    parse_part_name,
    part_name,
    refuse_parts_of_another_plan,
)
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, locate, read_bytes
from rembert_ray.storage.parquet import read_footer_values, read_rows
from rembert_ray.storage.probe import probe_output
from rembert_ray.storage.put import put_new
from rembert_ray.storage.seal import broken_seal
from tests.servers.fault_proxy import Fault

PART = Part(42, "0123abcd", "plan-1", "s3://in/a.parquet", 100, 3, "attempt-1")
TABLE = pa.table({"id": [1, 2, 3], "text": ["a", None, "c"]})


def test_names_carry_the_shard_and_the_fingerprint() -> None:
    assert part_name(42, "0123abcd") == "part-00000042-0123abcd.parquet"
    assert parse_part_name("part-00000042-0123abcd.parquet") == (42, "0123abcd")
    assert parse_part_name("part-123456789-ab.parquet") == (123456789, "ab")


@pytest.mark.parametrize(
    "name", ["part-42-ab.parquet", ".tmp-part-00000042-ab.parquet", "part-00000042-ab", "_SUCCESS"]
)
def test_other_names_are_no_parts(name: str) -> None:
    assert parse_part_name(name) is None


def test_a_fingerprint_that_would_not_parse_is_refused() -> None:
    with pytest.raises(ValueError, match="not a part name"):
        part_name(1, "XYZ")


def test_a_part_is_written_once_and_says_what_it_is(store: Location) -> None:
    commit = commit_part(store, PART, TABLE, {"n_tokens": "7"})
    assert (commit.outcome, commit.n_rows, commit.differs) == ("written", 3, False)
    assert commit.n_bytes == len(read_bytes(commit.location))
    footer = read_footer_values(commit.location)
    assert footer.pop("seal").startswith("sha256-of-this-file:")
    assert broken_seal(read_bytes(commit.location)) is None
    assert footer == {**PART.footer(), "n_tokens": "7", "content_digest": commit.content_digest}
    assert read_rows(commit.location, 0, 3).equals(TABLE)
    assert list_names(store) == [PART.name]


def test_object_metadata_names_attempt_rows_and_digest(s3_folder: Location) -> None:
    commit = commit_part(s3_folder, PART, TABLE, {})
    assert s3.head(commit.location.path)["Metadata"] == {"attempt": "attempt-1", "rows": "3", "sha256": commit.sha256}


def test_the_same_attempt_again_is_recovered(store: Location) -> None:
    first = commit_part(store, PART, TABLE, {})
    again = commit_part(store, PART, TABLE, {})
    assert again == replace(first, outcome="recovered")


def test_another_attempt_adopts_the_first(store: Location) -> None:
    first = commit_part(store, PART, TABLE, {"seconds": "1"})
    other = commit_part(store, replace(PART, attempt="attempt-2"), TABLE, {"seconds": "2"})
    assert (other.outcome, other.attempt, other.differs) == ("adopted", "attempt-1", False)
    assert other.content_digest == first.content_digest
    assert read_footer_values(first.location)["seconds"] == "1"


def test_adoption_says_when_the_values_differ(store: Location) -> None:
    first = commit_part(store, PART, TABLE, {})
    changed = TABLE.set_column(0, "id", pa.array([1, 2, 4]))
    other = commit_part(store, replace(PART, attempt="attempt-2"), changed, {})
    assert (other.outcome, other.differs, other.content_digest) == ("adopted", True, first.content_digest)
    assert read_rows(first.location, 0, 3).equals(TABLE)


@pytest.mark.parametrize("change", [{"plan_id": "plan-2"}, {"source": "s3://in/b.parquet"}, {"row_start": 0}])
def test_another_identity_under_the_name_is_a_hard_error(store: Location, change: dict[str, Any]) -> None:
    commit_part(store, PART, TABLE, {})
    key = next(iter(change))
    with pytest.raises(StorageError, match=f"is not this shard: {key} .*move it away"):
        commit_part(store, replace(PART, attempt="attempt-2", **change), TABLE, {})


def test_foreign_bytes_under_the_name_are_a_hard_error(store: Location) -> None:
    put_new(store.child(PART.name), b"not Parquet at all")
    with pytest.raises(StorageError, match="exists but is not a part of this job"):
        commit_part(store, PART, TABLE, {})


def test_the_wrong_number_of_rows_is_never_committed(store: Location) -> None:
    with pytest.raises(ShardError, match="2 rows instead of 3"):
        commit_part(store, PART, TABLE.slice(1), {})
    assert list_names(store) == []


def test_racing_attempts_leave_one_part_and_agree_on_it(store: Location) -> None:
    n_threads = 8
    gate = threading.Barrier(n_threads)

    def race(index: int) -> tuple[str, str]:
        gate.wait()
        commit = commit_part(store, replace(PART, attempt=f"attempt-{index}"), TABLE, {})
        return commit.outcome, commit.attempt

    with ThreadPoolExecutor(n_threads) as pool:
        ends = list(pool.map(race, range(n_threads)))
    assert sorted(outcome for outcome, _ in ends) == ["adopted"] * (n_threads - 1) + ["written"]
    assert len({attempt for _, attempt in ends}) == 1
    assert list_names(store) == [PART.name]


def test_resume_is_one_listing(store: Location) -> None:
    assert list_parts(store, "0123abcd").tolist() == []
    for shard in (7, 42, 3):
        commit_part(store, replace(PART, shard=shard), TABLE, {})
    commit_part(store, replace(PART, shard=9, fingerprint="ffff"), TABLE, {})
    put_new(store.child("_SUCCESS"), b"{}")
    put_new(store.child(".tmp-part-00000001-0123abcd.parquet-x"), b"")
    put_new(store.child("below", part_name(5, "0123abcd")), b"")
    shards = list_parts(store, "0123abcd")
    assert shards.dtype == np.int64
    assert shards.tolist() == [3, 7, 42]


def test_a_listing_of_more_than_a_page_is_complete(s3_folder: Location) -> None:
    """S3 lists 1,000 names per reply."""
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda shard: put_new(s3_folder.child(part_name(shard, "ab")), b""), range(2500)))
    assert all(done)
    assert list_parts(s3_folder, "ab").tolist() == list(range(2500))


def test_an_unreachable_output_is_an_error_not_an_empty_one(s3_server: Any) -> None:
    with pytest.raises(StorageError, match="no such bucket"):
        list_parts(locate("s3://no-such-bucket-here/out"), "ab")


def test_a_good_output_has_no_faults_and_is_left_clean(store: Location) -> None:
    assert probe_output(store) == []
    assert list_names(store) == []
    assert list_names(store.child("_rembert_ray")) == []


def test_the_probe_names_what_is_wrong(s3_server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in str(probe_output(locate(str(tmp_path / "file" / "out")))[0])
    assert "no such bucket" in str(probe_output(locate("s3://no-such-bucket-here/out"))[0])
    assert "Read-only" in str(probe_output(locate("/sys/out"))[0]) or "denied" in str(
        probe_output(locate("/sys/out"))[0]
    )
    assert "no known create-only put" in str(probe_output(locate("http://127.0.0.1:9/out"))[0])


def test_the_probe_finds_a_store_that_ignores_the_condition(
    s3_folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated by dropping the condition on the way out: the store then overwrites."""
    send = s3.call

    def send_unconditionally(*place: Any, **arguments: Any) -> dict[str, Any]:
        arguments.pop("IfNoneMatch", None)
        return send(*place, **arguments)

    monkeypatch.setattr(s3, "call", send_unconditionally)
    assert "ignores `If-None-Match: *`" in str(probe_output(s3_folder)[0])


@pytest.mark.parametrize(
    ("request_line", "done", "permission"),
    [
        ("^DELETE", "deleted", "s3:DeleteObject"),
        ("^GET .*/probe-", "read", "s3:GetObject"),
        ("^GET .*list-type", "listed", "s3:ListBucket"),
    ],
)
def test_the_probe_says_which_permission_is_missing(
    faults: Any, s3_folder: Location, request_line: str, done: str, permission: str
) -> None:
    faults.faults.append(Fault(request_line, -1, "error:403:AccessDenied"))
    (fault,) = probe_output(s3_folder)
    assert f"files can be written but not {done}: permission denied (AccessDenied)" in str(fault)
    assert permission in fault.fix


def test_the_probe_of_a_store_that_may_not_be_written(faults: Any, s3_folder: Location) -> None:
    faults.faults.append(Fault("^PUT", -1, "error:403:AccessDenied"))
    (fault,) = probe_output(s3_folder)
    assert "permission denied (AccessDenied)" in str(fault)
    assert "the policy of the bucket" in fault.fix


def test_a_lost_reply_is_recovered_not_doubled(faults: Any, s3_folder: Location) -> None:
    faults.faults.append(Fault("^PUT", 1, "lose_reply"))
    commit = commit_part(s3_folder, PART, TABLE, {})
    assert commit.outcome == "recovered"
    assert sum(line.startswith("PUT") for line in faults.seen) == 2


@pytest.mark.parametrize("action", ["status:503", "status:500", "status:409", "status:429"])
def test_a_store_that_recovers_is_waited_for(faults: Any, s3_folder: Location, action: str) -> None:
    faults.faults.append(Fault("^PUT", 4, action))
    assert commit_part(s3_folder, PART, TABLE, {}).outcome == "written"


def test_a_store_that_hangs_is_given_up(faults: Any, s3_folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 0.3)
    faults.faults.append(Fault("^PUT", -1, "hang"))
    with pytest.raises(StorageError, match="no complete reply to put_object"):
        commit_part(s3_folder, PART, TABLE, {}, budget_s=0.5)


def test_commits_through_a_bad_network_are_exactly_once(faults: Any, s3_folder: Location) -> None:
    """Three writers at twenty shards, a third of the puts broken: each shard once, everybody agrees on whose it is."""
    faults.faults.extend(Fault(f"{part_name(shard, 'ab')}", 1, "lose_reply") for shard in range(0, 20, 2))
    faults.faults.extend(Fault(f"{part_name(shard, 'ab')}", 1, "status:503") for shard in range(0, 20, 3))

    def write(job: tuple[int, int]) -> tuple[int, str]:
        shard, writer = job
        part = replace(PART, shard=shard, fingerprint="ab", attempt=f"{shard}-{writer}")
        return shard, commit_part(s3_folder, part, TABLE, {}).attempt

    with ThreadPoolExecutor(6) as pool:
        winners = set(pool.map(write, [(shard, writer) for shard in range(20) for writer in range(3)]))
    assert len(winners) == 20
    assert list_parts(s3_folder, "ab").tolist() == list(range(20))


def test_parts_that_a_listing_leaves_out_are_looked_for_by_name(faults: Any, s3_folder: Location) -> None:
    for shard in (2, 5, 7):
        commit_part(s3_folder, replace(PART, shard=shard), TABLE, {})
    faults.faults.append(Fault("^GET .*list-type", -1, "lag:600"))
    assert list_parts(s3_folder, "0123abcd").tolist() == []
    there = confirm_parts(s3_folder, "0123abcd", np.array([7, 5, 3], np.int64))
    assert (there.dtype, there.tolist()) == (np.int64, [5, 7])


def test_confirmation_of_what_is_there_and_what_is_not(store: Location) -> None:
    commit_part(store, PART, TABLE, {})
    assert confirm_parts(store, PART.fingerprint, np.array([41, 42, 43], np.int64)).tolist() == [42]
    assert confirm_parts(store, PART.fingerprint, np.array([], np.int64)).tolist() == []


def test_confirmation_ends_in_time_and_says_so(store: Location) -> None:
    with pytest.raises(StorageError, match=r"100 objects are not in the listing.*Run the same command again"):
        confirm_parts(store, "ab", np.arange(100, dtype=np.int64), budget_s=-1)


def test_parts_of_another_plan_are_not_taken_for_ours(store: Location) -> None:
    commit_part(store, PART, TABLE, {})
    there = list_parts(store, PART.fingerprint)
    refuse_parts_of_another_plan(store, PART.fingerprint, PART.plan_id, there)
    refuse_parts_of_another_plan(store, PART.fingerprint, "plan-2", there[:0])
    with pytest.raises(UnusableError, match="is a part of the plan plan-1, the plan stored here is plan-2"):
        refuse_parts_of_another_plan(store, PART.fingerprint, "plan-2", there)
    replace_with = store.child(PART.name)
    delete(replace_with)
    put_new(replace_with, b"no Parquet")
    with pytest.raises(UnusableError, match="none that can be read"):
        refuse_parts_of_another_plan(store, PART.fingerprint, PART.plan_id, there)
