"""A child that dies or hangs is an error in words; it gets no credentials."""

from __future__ import annotations

import sys

import pytest

from rembert_ray.convert.isolation import run_child
from rembert_ray.errors import UnusableError


def run(code: str, deadline_s: float = 60.0) -> None:
    run_child([sys.executable, "-c", code], where="/old/x.bin", deadline_s=deadline_s)


def test_a_child_that_ends_well_raises_nothing():
    run("pass")


def test_faults_of_the_child_are_ours():
    with pytest.raises(UnusableError) as caught:
        run("""import sys; print('[["/old/x.bin", "is odd", "mend it"], ["b", "too", ""]]'); sys.exit(2)""")
    assert caught.value.lines == ["/old/x.bin: is odd (mend it)", "b: too"]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_a_killed_child(name):
    with pytest.raises(UnusableError, match=rf"/old/x\.bin: .* died of {name} \(out of memory"):
        run(f"import os, signal; os.kill(os.getpid(), signal.{name})")


def test_a_child_that_hangs_is_ended():
    with pytest.raises(UnusableError, match="did not end within 1 s"):
        run("import time; time.sleep(300)", deadline_s=1.0)


def test_a_child_that_fails_says_with_what():
    with pytest.raises(UnusableError, match="failed with KeyError: 'odd'"):
        run("{}['odd']")


def test_the_child_sees_no_credentials_and_our_packages(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    run("import os, rembert_ray; assert 'secret' not in os.environ.values(), os.environ")
