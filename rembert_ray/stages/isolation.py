"""A stage in a process of its own: what kills it or never ends costs that process and nothing else.

The child holds one stage and one envelope, and answers one attempt after the other; it ends with its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from rembert_ray.errors import RembertRayError
from rembert_ray.stages.envelope import Envelope, seal, unseal
from rembert_ray.stages.spec import JobSpec
from rembert_ray.watchdog import silence_ends_process

_PR_SET_PDEATHSIG = 1
_FIRST_TO_DIE = "1000"


class Stage(Protocol):
    """A stage class: made from a spec, it turns envelopes into envelopes."""

    def __init__(self, spec: JobSpec) -> None: ...

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `envelope.run_stage`."""
        ...


class DiedError(Exception):
    """The child ended, or was ended because it did not answer in time; the text says how."""


class IsolatedStage:
    """A stage for one envelope in a child process that is started when it is needed, and anew after it died.

    `load_s` of a child's seconds may go into loading the stage, `attempt_s` into one attempt: an end to what nothing
    else ends.
    """

    load_s = 900.0

    def __init__(self, stage: type[Stage], spec: JobSpec, envelope: Envelope, attempt_s: float) -> None:
        self._task = pickle.dumps((stage, spec, seal([envelope])))
        self._attempt_s = attempt_s
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: Connection | None = None

    def attempt(self, set_aside: dict[int, str], silence_s: float) -> Envelope:
        """What the stage makes of the envelope with these rows set aside as well.

        Raises:
            DiedError: the process ended, or was silent for `silence_s` seconds.
            RembertRayError: what the stage raised for the whole job.
        """
        answers = self._start()
        answers.send_bytes(pickle.dumps((set_aside, silence_s)))
        answer = self._receive(answers, self._attempt_s, f"silent for {silence_s:.0f} s")
        if isinstance(answer, RembertRayError):
            raise answer
        (done,) = unseal(answer)
        return done

    def _start(self) -> Connection:
        if self._answers is not None:
            return self._answers
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "rembert_ray.stages.isolation", str(theirs.fileno())]
            self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._answers = Connection(ours.detach())
        with suppress(BrokenPipeError):
            self._answers.send_bytes(self._task)
        self._receive(self._answers, self.load_s, "it cannot load its stage")
        return self._answers

    def _receive(self, answers: Connection, timeout_s: float, meaning_of_exit_1: str) -> object:
        try:
            if answers.poll(timeout_s):
                return pickle.loads(answers.recv_bytes())
        except (EOFError, ConnectionError):
            how = self._stop()
            raise DiedError(meaning_of_exit_1 if how == "exit code 1" else how) from None
        self._stop()
        raise DiedError(f"no end after {timeout_s:.0f} s")

    def _stop(self) -> str:
        """End the child if it lives; what it ended of."""
        assert self._child is not None
        assert self._answers is not None
        self._answers.close()
        try:
            code = self._child.wait(1.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._child = self._answers = None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._stop()


def main(handle: int) -> None:
    """The child: load the stage, then answer attempts until the parent hangs up."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # If memory gets short, this process is the one to go.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)
    faulthandler.enable()
    parent = Connection(handle)
    stage, spec, sealed = pickle.loads(parent.recv_bytes())
    (envelope,) = unseal(sealed)
    run: Stage = stage(spec)
    parent.send_bytes(pickle.dumps("loaded"))
    while True:
        try:
            set_aside, silence_s = pickle.loads(parent.recv_bytes())
        except EOFError:
            return
        one = replace(envelope, facts=dict(envelope.facts), set_aside=envelope.set_aside | set_aside)
        answer: object
        try:
            with silence_ends_process(silence_s):
                answer = run(seal([one]))
        except RembertRayError as error:
            answer = error
        parent.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]))
