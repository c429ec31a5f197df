"""What a run says while it works: words for a person at a terminal, one event a line for logs.

An event is `time=... level=info event=progress run=... rows=2801 ...`, as logfmt has it (https://brandur.org/logfmt),
or a JSON object with the same keys. Every event has a `message` in words. Text of rows is in none, unless asked for.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from rich.console import Console

from rembert_ray.errors import RembertRayError, UnusableError, printable

Style = Literal["words", "keyvalue", "json"]
STYLES: tuple[Style, ...] = ("words", "keyvalue", "json")
_BARE = re.compile(r"[^\s\"=\\]+")
_LABEL_WIDTH = 12


def terminal() -> Console:
    """Where a run says what it does, unless its caller has a console."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Narrator:
    """One voice for one run. `fixed` are fields of every event; `shows_rows`: samples of rows are told, too."""

    console: Console = field(default_factory=terminal)
    style: Style = "words"
    shows_rows: bool = True
    fixed: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def for_stream(cls, style: Style | None, *, shows_rows: bool) -> Narrator:
        """On standard error; without a style words at a terminal (with rows) and events elsewhere."""
        console = terminal()
        chosen = style or ("words" if console.is_terminal else "keyvalue")
        return cls(console, chosen, shows_rows=shows_rows or (style is None and console.is_terminal))

    def say(self, event: str, words: str, level: str = "info", **fields: Any) -> None:
        """Tell that something happened: `words` for a person, their first line with the fields for a log."""
        if self.style == "words":
            self.console.print(words, soft_wrap=True, markup=False, highlight=False)
            return
        message = _without_label(words.splitlines()[0] if words else "")
        values = self.fixed | fields
        self.console.out(format_event(self.style, level, event, values | {"message": message}), highlight=False)

    def tell_error(self, error: RembertRayError) -> None:
        """What ended the run: an event for each fault. In words that is the business of `fault_frames`."""
        if isinstance(error, UnusableError):
            for fault in error.faults:
                fields = {"where": fault.where, "fix": fault.fix or None, "exit_code": error.exit_code}
                self.say("fault", str(fault), level="error", **fields)
        else:
            self.say("error", str(error), level="error", exit_code=error.exit_code)


def _without_label(line: str) -> str:
    """A line of words without the label in its first twelve characters."""
    label, rest = line[:_LABEL_WIDTH], line[_LABEL_WIDTH:]
    return rest if label.endswith("  ") else line


def format_event(style: Style, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """One line: `key=value ...`, or a JSON object. Values of several lines are escaped."""
    values = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event, **fields}
    if style == "json":
        # ASCII only: some readers end a line at characters such as U+0085.
        return json.dumps(values, default=str)
    return " ".join(f"{key}={_value(value)}" for key, value in values.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = printable(str(value)) if not isinstance(value, Mapping | list | tuple) else json.dumps(value, default=str)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class EventFormatter(logging.Formatter):
    """Records of `logging` as events: those of workers, whose tracebacks become one line, too."""

    def __init__(self, style: Style, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self.style, self.fixed = style, dict(fixed)

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = self.fixed | {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info).replace("\n", " | ")
        return format_event(self.style, record.levelname.lower(), "log", fields)


def log_events(style: Style, **fixed: Any) -> None:
    """Let this process's loggers of the package write events to standard error; in words they write as Ray has it."""
    logger = logging.getLogger("rembert_ray")
    if style == "words" or any(isinstance(handler.formatter, EventFormatter) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(style, fixed))
    logger.addHandler(handler)
    logger.propagate = False
