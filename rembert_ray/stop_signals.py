"""SIGTERM and SIGINT as an error like the others, so that a run that is stopped cleans up and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rembert_ray.errors import StoppedError

MESSAGE = "stopped by {name}; what is committed stays, run the same command to resume"


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """SIGTERM and SIGINT raise `StoppedError` in the main thread, where it is. Other threads are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise StoppedError(MESSAGE.format(name=name))

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
