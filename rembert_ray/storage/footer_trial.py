"""Parquet footers are tried in a process that may die of them.

With some damaged footers pyarrow (26) ends the process where an exception is due: it reads them without complaint, and
looking at a column whose statistics contradict the schema is fatal. So a child looks at everything first. It gets the
bytes of footers on its standard input, imports pyarrow alone (0.2 s), and ends with its parent. It must not touch
storage.
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

TRIAL_DEADLINE_S = 60.0
_LENGTH = struct.Struct("<Q")
_CHILD = """
import io, struct, sys
import pyarrow.parquet as pq
while length := sys.stdin.buffer.read(8):
    data = sys.stdin.buffer.read(struct.unpack("<Q", length)[0])
    try:
        footer = pq.read_metadata(io.BytesIO(data))
        footer.schema.to_arrow_schema()
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                column.total_compressed_size, column.path_in_schema
    except Exception:
        pass  # An exception is what there should be: the parent has it, too.
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
"""


class FooterTrial:
    """A context manager around many trials, from any thread; the child starts with the first, and after a death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def survives(self, footer: bytes) -> bool:
        """Whether a footer (see `read_raw_footer`) can be read, and all columns looked at, and the process goes on.

        False also when the child does not answer within a minute.
        """
        with self._lock:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):
                child.stdin.write(_LENGTH.pack(len(footer)) + footer)
                child.stdin.flush()
                if _read_byte(child.stdout) == b".":
                    return True
            self._end()
            return False

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", _CHILD]
        # The child reports its death on stderr, in words that are not for the operator; it needs no credentials.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            with suppress(BrokenPipeError):
                self._child.communicate()
            self._child = None


def _read_byte(stream: IO[bytes]) -> bytes:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return os.read(stream.fileno(), 1) if poll.poll(1000 * TRIAL_DEADLINE_S) else b""
