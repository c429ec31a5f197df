"""The fault tests, each as often as it takes to trust it: how many tries, and in how many a promise was broken.

python -m benchmarks.chaos                      every promise, hours
python -m benchmarks.chaos --only driver        promises whose name holds the word
python -m benchmarks.chaos --tries 5            at most so many tries each

Instants and victims are drawn anew in every try. It prints one Markdown table and ends with 1 if any try failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import describe_machine, print_table

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Promise:
    """A row of the table: what is done, the tests that do it, and how often each of their cases is tried."""

    fault: str
    tests: tuple[str, ...]
    tries: int


PROMISES = (
    Promise(
        "kill -9 of the driver, run again",
        ("test_kills.py::test_a_killed_driver_costs_at_most_the_shards_in_flight",),
        25,
    ),
    Promise("kill -9 of workers, five in each run", ("test_kills.py::test_killed_workers_cost_nothing",), 5),
    Promise("kill -9 of a node", ("test_kills.py::test_a_lost_node_costs_nothing",), 5),
    Promise("SIGTERM to the driver", ("test_stops.py::test_sigterm_ends_with_75_and_the_next_run_goes_on",), 5),
    Promise(
        "no progress for the stall time", ("test_stops.py::test_no_progress_ends_with_6_and_leaves_the_stacks",), 1
    ),
    Promise(
        "death at every step of a commit, twice",
        ("test_commit_steps.py::test_a_death_leaves_the_object_whole_or_absent",),
        1,
    ),
    Promise("a zombie writer", ("test_commit_steps.py::test_a_zombie_that_wakes_up_late_adopts",), 5),
    Promise(
        "lost replies, three writers",
        ("test_commit_steps.py::test_lost_replies_and_three_writers_at_a_time_leave_each_object_once",),
        1,
    ),
    Promise("rows that kill, hang or exhaust a worker; a device that breaks", ("test_rows_that_kill.py",), 1),
    Promise("a store that breaks requests, goes away, denies, lags", ("test_storage.py",), 1),
    Promise("flipped bits, 50 a try", ("test_flipped_bits.py",), 1),
    Promise("broken inputs", ("test_inputs.py",), 1),
    Promise("the same output again, another manifest", ("test_undisturbed.py",), 1),
)


def run_tests(tests: tuple[str, ...], tries: int) -> tuple[int, int, int]:
    """(cases tried, cases that failed, cases skipped)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        places = [f"tests/faults/{test}" for test in tests]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *places,
        ]
        environment = os.environ | {"REMBERT_RAY_TRIES": str(tries)}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        (suite,) = ET.parse(report).getroot()
        if done.returncode not in (0, 5):
            print(done.stdout, file=sys.stderr)
    n_tests, n_skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    return n_tests - n_skipped, int(suite.attrib["failures"]) + int(suite.attrib["errors"]), n_skipped


def main() -> int:
    """Run the promises that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="promises whose name or test holds this")
    parser.add_argument("--tries", type=int, default=10**6, help="at most so many tries of each case")
    parser.add_argument("--smoke", action="store_true", help="the fastest promise, once")
    arguments = parser.parse_args()
    chosen = [one for one in PROMISES if arguments.only in f"{one.fault} {one.tests}"]
    if arguments.smoke:
        chosen = [one for one in PROMISES if "lost replies" in one.fault]
    rows = []
    for promise in chosen:
        started = time.monotonic()
        n_tried, n_broken, n_skipped = run_tests(promise.tests, min(promise.tries, arguments.tries))
        minutes = (time.monotonic() - started) / 60
        rows.append([promise.fault, str(n_tried), str(n_broken), str(n_skipped), f"{minutes:.1f}"])
        print(f"{promise.fault}: {n_tried} tried, {n_broken} failed", file=sys.stderr)
    print(describe_machine())
    print()
    print_table(["fault", "tries (on both stores)", "promise broken", "skipped", "minutes"], rows)
    return int(any(row[2] != "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
