"""What a dead worker leaves behind, and the end of a silent one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rembert_ray import watchdog
from rembert_ray.watchdog import Watchdog, describe_workers, run_folder

SCRIPT = """
import os, re, signal, sys, time
from rembert_ray.watchdog import Watchdog, beat
dog = Watchdog("run", "worker", float(sys.argv[2]))
if dog.last_words is not None:
    print(dog.last_words.shard, dog.last_words, "endless_work" in dog.last_words.stacks)
def endless_work():
    re.match(r"(a+)+$", "a" * 60 + "b")
with dog.at_work("encode", 7):
    if sys.argv[1] == "die": os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "hang": endless_work()
    if sys.argv[1] == "beat":
        for _ in range(30):
            time.sleep(0.1); beat()
    if sys.argv[1] == "wait":
        print("waiting", flush=True); time.sleep(60)
print("done")
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def run(what: str, silence_s: float = 60) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, what, str(silence_s)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_the_next_worker_of_the_name_learns_what_the_dead_one_had_in_hand(work):
    assert work("die").returncode == -signal.SIGKILL
    assert work("work").stdout.splitlines() == ["7 a process ended in encode with this shard in hand False", "done"]
    assert work("work").stdout.splitlines() == ["done"], "told once"


def test_work_that_ended_well_leaves_nothing_to_tell(work):
    assert work("work").stdout == "done\n"
    assert work("work").stdout == "done\n"


def test_a_silent_process_is_ended_even_inside_of_a_native_call(work):
    assert work("hang", 1).returncode == 1
    words = work("work").stdout.splitlines()[0]
    assert words == "7 a process was silent for too long and was ended in encode with this shard in hand True"


def test_signs_of_life_keep_a_process(work):
    done = work("beat", 1.5)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_workers_are_described_with_their_stacks(work):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, "wait", "60"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        text = describe_workers("run")
        assert f"process {process.pid}: encode of shard 7 for " in text
        assert "in <module>" in text
        assert describe_workers("another") == "no worker of this run is alive here"
    finally:
        process.kill()
        process.communicate()
    assert describe_workers("run") == "no worker of this run is alive here"


def test_a_process_that_only_has_the_number_of_a_worker_gets_no_signal(work):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        run_folder("run").mkdir()
        (run_folder("run") / f"worker-{bystander.pid}.stacks").write_text("")
        describe_workers("run")
        time.sleep(0.2)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_traces_of_old_runs_are_removed(work):
    old = run_folder("old")
    old.mkdir()
    long_ago = time.time() - 2 * watchdog.FORGOTTEN_AFTER_S
    os.utime(old, (long_ago, long_ago))
    Watchdog("run", "worker", 60)
    assert not old.exists()


def test_a_folder_of_somebody_else_is_refused(work, monkeypatch):
    run_folder("run")
    owner = os.getuid()
    folder = run_folder("run").parent
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    folder.rename(folder.with_name(f"rembert-ray-{owner + 1}"))
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        run_folder("run")
