"""`retry` without Ray: what it finds, what it would do, and in which order it deletes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import LeaseHeldError, UnusableError
from rembert_ray.report import status
from rembert_ray.retry import find_retry, retry, take_back
from rembert_ray.storage.below import names_below
from rembert_ray.storage.commit import list_parts, part_name
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import delete, locate
from tests.conftest import write_corpus, write_manifest
from tests.outputs import N_SHARDS, finish_output, rows_of


def test_parts_with_errors_are_found_and_shards_that_are_missing(store):
    output, plan = finish_output(store)
    with_error = [shard.index for shard in plan.iter_shards() if rows_of(shard)["error"].null_count < shard.n_rows]
    assert with_error
    found = find_retry(output, plan)
    assert found.shards.tolist() == with_error
    assert found.errors == {"text is null": found.n_rows_with_error}
    assert found.infer_s == 0.5 * len(with_error)
    assert find_retry(output, plan, "text is").shards.tolist() == with_error
    nothing = find_retry(output, plan, "out of memory")
    assert nothing.is_empty
    assert "nothing to try again" in "\n".join(nothing.lines())
    gone = with_error[0]
    delete(output.child(part_name(gone, plan.fingerprint.digest)))
    status.quarantine(output, f"shard-{gone:08d}", {"reason": "a page is damaged"})
    found = find_retry(output, plan, "out of memory")
    assert found.missing.tolist() == [gone]
    assert "missing     1 shards, 1 of them quarantined" in list(found.lines())


def test_success_goes_first_and_only_what_is_named(store):
    output, plan = finish_output(store)
    before = set(names_below(output))
    found = find_retry(output, plan)
    steps = take_back(output, plan, found.shards)
    assert next(steps) == "_SUCCESS"
    assert set(names_below(output)) == before - {"_SUCCESS"}, "killed here, every part is there and the output is open"
    names = {part_name(shard, plan.fingerprint.digest) for shard in found.shards.tolist()}
    assert set(steps) == names
    assert set(names_below(output)) == before - {"_SUCCESS"} - names
    assert list(take_back(output, plan, found.missing)) == [], "nothing to take back leaves `_SUCCESS`"


def test_the_verb_says_what_it_would_do_and_does_it_not(tmp_path):
    output, _plan = finish_output(locate(str(tmp_path)))
    before = set(names_below(output))
    done = CliRunner().invoke(app, ["retry", str(output), "--dry-run"])
    assert done.exit_code == 0
    assert "text is null" in done.output
    assert set(names_below(output)) == before


@pytest.fixture
def used(tmp_path, model_folder):
    """The output of a job that can be run; its only part has a row with an error, and it is closed."""
    from rembert_ray.check import check_job
    from rembert_ray.job_spec import job_spec
    from rembert_ray.manifest import load_manifest
    from rembert_ray.plan import freeze_plan
    from rembert_ray.stages.encode import Encode
    from rembert_ray.stages.envelope import Envelope
    from rembert_ray.stages.infer import Infer
    from rembert_ray.stages.write import Write

    write_corpus(tmp_path / "corpus" / "a.parquet", ["a light", None])
    text = f"task: tag\nmodel: {model_folder}\ninput: {{path: corpus}}\noutput: {{path: out}}\n"
    checked = check_job(load_manifest(write_manifest(tmp_path, text)))
    spec = job_spec(checked, freeze_plan(checked.output, checked.plan), "run")
    stages = Encode(spec).encode, Infer(spec).infer, Write(spec).write
    envelope = Envelope(checked.plan.shard(0))
    for stage in stages:
        envelope = stage(envelope)
    status.close(checked.output, {})
    return checked


def assert_untouched(checked):
    assert status.is_success(checked.output)
    assert list_parts(checked.output, checked.plan.fingerprint.digest).tolist() == [0]


def test_whatever_keeps_the_job_from_running_is_found_before_anything_is_deleted(used, tmp_path, monkeypatch):
    output = str(used.output)
    with Lease.acquire(used.output, LeaseOwner.this_process("night")), pytest.raises(LeaseHeldError, match="night"):
        retry(output)
    assert_untouched(used)
    with pytest.raises(UnusableError, match="holds results of another plan"):
        retry(output, overrides=["text.overlap=3"])
    with pytest.raises(UnusableError, match="leave it out"):
        retry(output, overrides=[f"output.path={tmp_path}/other"])
    assert retry(output, "out of memory") == 0
    assert_untouched(used)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus" / "a.parquet").rename(tmp_path / "corpus" / "b.parquet")
    with pytest.raises(UnusableError, match="not there"):
        retry("out")
    assert_untouched(used)


def test_an_output_that_was_moved_is_tried_again_where_it_is(used, tmp_path):
    moved = tmp_path / "elsewhere"
    (tmp_path / "out").rename(moved)
    assert retry(str(moved), "out of memory") == 0
    assert not (tmp_path / "out").exists()
    assert find_retry(locate(str(moved)), used.plan).shards.tolist() == [0]


def test_numbers_in_errors_are_no_kinds_and_may_be_asked_for_as_shown(store, monkeypatch):
    from tests import outputs

    monkeypatch.setattr(outputs, "rows_of", lambda shard: _too_long(rows_of(shard)))
    output, plan = finish_output(store)
    found = find_retry(output, plan, "N tokens")
    assert list(found.errors) == ["N tokens, a window takes N"]
    assert len(find_retry(output, plan, "1,003 tokens").shards) == 1
    assert len(found.shards) == N_SHARDS


def _too_long(rows):
    import pyarrow as pa

    errors = [f"{1000 + number:,} tokens, a window takes 512" for number in rows["number"].to_pylist()]
    return rows.set_column(rows.column_names.index("error"), "error", pa.array(errors))
