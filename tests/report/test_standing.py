"""`status`: what it tells of an output that is running, dead, resumable, quarantined or closed; and `--watch`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.plan import freeze_plan, load_plan
from rembert_ray.report import standing as standings
from rembert_ray.report import status
from rembert_ray.report.standing import Observer
from rembert_ray.report.watch import look_at, watch
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import delete, locate
from tests.outputs import N_SHARDS, close, commit_shards, finish_output, plan_of

LAST = {
    "run": "now",
    "state": "running",
    "exit_code": None,
    "message": "",
    "shards": {"planned": N_SHARDS, "committed": 4, "failed": 1},
    "rows": {"planned": 60, "committed": 32, "committed_this_run": 32, "with_error_this_run": 5},
    "rows_per_s": 12.0,
    "tokens_per_s": 345.0,
    "eta_s": 100.0,
}


@pytest.fixture
def output(store):
    """A plan and no part."""
    place = store.child("out")
    freeze_plan(place, plan_of(store.child("corpus")))
    return place


def shown(output):
    return "\n".join(look_at(str(output)).lines())


def test_before_the_first_run_and_after_the_last(output):
    plan = stored_plan(output)
    found = look_at(str(output))
    assert (found.exit_code, found.shards_committed, found.n_rows) == (75, 0, 60)
    assert "run the job's command again" in found.next_command
    commit_shards(output, plan, range(N_SHARDS))
    assert look_at(str(output)).exit_code == 75, "all parts, and not closed"
    close(output, plan)
    found = look_at(str(output))
    assert (found.exit_code, found.shards_committed, found.rows_committed) == (0, N_SHARDS, 60)
    assert found.next_command.startswith("rembert-ray sample")


def stored_plan(output):
    plan = load_plan(output)
    assert plan is not None
    return plan


def test_a_run_that_goes_on_is_told_with_its_process_and_its_speed(output, monkeypatch):
    commit_shards(output, stored_plan(output), range(3))
    with Lease.acquire(output, LeaseOwner.this_process("now"), heartbeat=False):
        assert "it starts: no status of it yet" in shown(output)
        status.write(output, LAST)
        text = shown(output)
        assert f"run now (process {os.getpid()} on" in text
        assert "shards      4 of 9" in text, "the status may know more than a listing"
        assert "12 rows/s, 345 tokens/s, 1 m 40 s to go" in text
        assert "5 with an error" in text
        assert look_at(str(output)).exit_code == 75
        assert "silent" not in text
        monkeypatch.setattr(standings, "SILENT_AFTER_S", -1e9)
        assert "it may be dead or hang: look at process" in shown(output)
    assert "running" not in [line.split()[0] for line in shown(output).splitlines()]


def test_a_killed_run_is_told_as_dead(output):
    code = (
        "import sys, os; from rembert_ray.storage.lease import *; from rembert_ray.storage.location import locate\n"
        "Lease.acquire(locate(sys.argv[1]), LeaseOwner.this_process('gone')); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(output)], check=False, timeout=120)
    status.write(output, LAST | {"run": "gone"})
    text = shown(output)
    assert "dead        run gone" in text
    assert "it resumes" in text
    assert look_at(str(output)).run_exit_code == 75


def test_quarantined_shards_and_refused_files_are_told_with_reasons(output):
    plan = stored_plan(output)
    commit_shards(output, plan, range(1, N_SHARDS))
    for shard in range(25):
        record = {"shard": shard, "source": "a.parquet", "reason": f"page \x1b[31m{shard} is damaged"}
        status.quarantine(output, f"shard-{shard:08d}", record)
    status.quarantine(output, "file-00000003", {"source": "b.parquet", "reason": "no footer"})
    status.write(output, LAST | {"state": "incomplete", "exit_code": 3})
    found = look_at(str(output))
    assert (found.exit_code, found.run_exit_code) == (3, 3)
    text = "\n".join(found.lines())
    assert "quarantined shard-00000000: a.parquet" in text
    assert "\x1b" not in text
    assert "and 6 more" in text
    assert "rembert-ray retry" in found.next_command
    for name in list_names(output.child("_rembert_ray", "quarantine"), "shard-"):
        delete(output.child("_rembert_ray", "quarantine", name))
    commit_shards(output, plan, [0])
    assert "into a new output.path" in look_at(str(output)).next_command


def test_the_verb_for_a_program_and_for_nothing(tmp_path):
    output, _ = finish_output(locate(str(tmp_path)))
    status.write(output, LAST | {"state": "done", "exit_code": 0})
    done = CliRunner().invoke(app, ["status", str(output), "--json"])
    assert done.exit_code == 0
    values = json.loads(done.output)
    assert values["shards"] == {"planned": N_SHARDS, "committed": N_SHARDS}
    assert values["holder"]["is_held"] is False
    assert values["quarantine"]["first"][0]["reason"] == "an old record"
    with pytest.raises(UnusableError, match="there is no plan"):
        look_at(str(tmp_path / "none"))


@pytest.mark.parametrize("is_terminal", [False, True])
def test_watching_ends_with_the_exit_code_of_the_run(output, is_terminal):
    plan, stream = stored_plan(output), io.StringIO()
    lease = Lease.acquire(output, LeaseOwner.this_process("now"), heartbeat=False)
    steps = iter(range(N_SHARDS + 1))

    def work(seconds: float) -> None:
        step = next(steps)
        assert seconds == 2
        if step < N_SHARDS - 1:
            commit_shards(output, plan, [step])
            counts = {"planned": N_SHARDS, "committed": step + 1, "failed": 0}
            status.write(output, LAST | {"shards": counts})
        else:
            status.write(output, LAST | {"state": "incomplete", "exit_code": 3})
            lease.release()

    console = Console(file=stream, force_terminal=is_terminal, width=100)
    assert watch(str(output), console, 2, sleep=work) == 3
    text = stream.getvalue()
    assert "8/9 shards" in text or is_terminal
    assert text.count("7/9 shards") <= 1, "a line for each change"
    assert "last run    now incomplete, exit code 3" in text


def test_objects_are_listed_when_told_only(tmp_path):
    output, plan = finish_output(locate(str(tmp_path)))
    observer = Observer(output, plan)
    assert observer.look().shards_committed == N_SHARDS
    delete(output.child(list_names(output, "part-")[0]))
    assert observer.look(lists=False).shards_committed == N_SHARDS
    assert observer.look().shards_committed == N_SHARDS - 1
    shorter = replace(observer.look(), last=None)
    assert "no status yet" in "\n".join(shorter.lines())
