"""Faults for a person at a terminal: what is wrong, the line of the manifest with a mark under it, what to do.

error: must be at least 0, is -1
  --> tag.yaml:12:3 head.top_k
   |
12 |   top_k: -1
   |   ^^^^^^^^^
   = help: ...

In a log a fault is one line (`error: where: what (fix)`), which people grep. A `Fault` carries no text of the manifest:
the line is read again, from local files and only from those that the person named, so that nothing has to travel with
errors between processes. All text is somebody else's and passes `printable`. It must not raise.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.cells import cell_len

from rembert_ray.errors import Fault, RembertRayError, UnusableError, printable
from rembert_ray.manifest import MAX_MANIFEST_BYTES
from rembert_ray.storage.location import locate, read_bytes

WIDTH_OF_LOGS = 120
LEAST_WIDTH = 30
_PLACE = re.compile(r":([0-9]+):([0-9]+)(?: (.*))?", re.DOTALL)
# What ends a line in YAML, and what its parser counts.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# Messages leave out credentials that somebody wrote into a URL or under a key; the line would show them in CI logs.
_SECRET = re.compile(
    r"://.*(@|\?[\w.-]+=)|secret|passw|credential|access_?key|api_?key|(?<![a-z])token[\"']?\s*:", re.IGNORECASE
)
_STYLES = {"error": "1;31", "frame": "1;34", "mark": "1;31", "help": "1;36", "bold": "1"}


@dataclass(frozen=True)
class PlacedFault:
    """A fault whose place is taken apart; `line` and `column` count from 1 and are None where it has none."""

    file: str
    line: int | None
    column: int | None
    key: str
    fault: Fault

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        place = {"file": self.file, "line": self.line, "column": self.column, "key": self.key}
        return {**place, "what": self.fault.what, "fix": self.fault.fix}


def place_faults(faults: Sequence[Fault], manifests: Sequence[str]) -> list[PlacedFault]:
    """The faults in the order of the manifests' lines, those of other places (model, corpus) after them."""
    placed = [_placed(fault, manifests) for fault in faults]
    last = len(manifests)
    order = {name: number for number, name in enumerate(manifests)}
    return sorted(placed, key=lambda item: (order.get(item.file, last), item.line or 0, item.column or 0))


def _placed(fault: Fault, manifests: Sequence[str]) -> PlacedFault:
    for name in (*manifests, "--set"):
        if fault.where == name:
            return PlacedFault(name, None, None, "", fault)
        if fault.where.startswith(f"{name} "):
            return PlacedFault(name, None, None, fault.where.removeprefix(f"{name} "), fault)
        match = _PLACE.fullmatch(fault.where.removeprefix(name)) if fault.where.startswith(name) else None
        if match is not None and len(match[1] + match[2]) < 20:
            return PlacedFault(name, int(match[1]), int(match[2]), match[3] or "", fault)
    return PlacedFault(fault.where, None, None, "", fault)


def print_error(error: RembertRayError, manifests: Sequence[str] = (), *, framed: bool | None = None) -> None:
    """Write an error to stderr: as frames when `framed` (default: when that is a terminal), else a line for each fault.

    `manifests` are the files whose lines may be shown: those that the person named.
    """
    stream = sys.stderr
    is_terminal = stream.isatty()
    if framed is None:
        framed = is_terminal
    if framed:
        width = shutil.get_terminal_size().columns if is_terminal else WIDTH_OF_LOGS
        lines = frames(error, manifests, width=width, coloured=_takes_colours(stream))
    else:
        lines = (f"error: {line}" for line in error.lines)
    # A terminal that cannot show a character shall not end in a traceback.
    encoding = stream.encoding or "utf-8"
    stream.writelines(line.encode(encoding, "backslashreplace").decode(encoding) + "\n" for line in lines)


def _takes_colours(stream: TextIO) -> bool:
    # https://no-color.org: set and not empty.
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def frames(
    error: RembertRayError, manifests: Sequence[str] = (), *, width: int = WIDTH_OF_LOGS, coloured: bool = False
) -> Iterator[str]:
    """The lines of all frames; `width` in terminal cells."""
    paint = _painted if coloured else _plain
    if not isinstance(error, UnusableError):
        yield from (f"{paint('error', 'error')}{paint('bold', ':')} {line}" for line in error.lines)
        return
    texts: dict[str, list[str]] = {}
    for item in place_faults(error.faults, manifests):
        if item.line is not None and item.file not in texts:
            texts[item.file] = _lines_of(item.file)
        yield from _frame(item, texts.get(item.file, []), max(width, LEAST_WIDTH), paint)
        yield ""
    n_faults = len(error.faults)
    names = ", ".join(printable(name) for name in manifests)
    if names or n_faults > 1:
        yield f"{n_faults} fault{'s' * (n_faults != 1)}" + (f" in {names}" if names else "")


def _frame(item: PlacedFault, lines: Sequence[str], width: int, paint: Any) -> Iterator[str]:
    fault = item.fault
    yield f"{paint('error', 'error')}{paint('bold', ':')} {paint('bold', printable(fault.what))}"
    line = lines[item.line - 1] if item.line and item.line <= len(lines) else ""
    is_shown = bool(line) and not _SECRET.search(line)
    indent = " " * (len(str(item.line)) if is_shown else 1)
    yield f"{indent}{paint('frame', '-->')} {printable(fault.where)}"
    if is_shown:
        shown, mark = mark_line(line, item.column or 1, width - len(indent) - 3)
        yield f"{indent} {paint('frame', '|')}"
        yield f"{paint('frame', f'{item.line} |')} {shown}".rstrip()
        yield f"{indent} {paint('frame', '|')} {mark[: -len(mark.lstrip())]}{paint('mark', mark.lstrip())}"
    for number, part in enumerate(textwrap.wrap(printable(fault.fix), width - len(indent) - 9)):
        before = f"{paint('frame', '=')} {paint('help', 'help:')}" if number == 0 else " " * len("= help:")
        yield f"{indent} {before} {part}"


def _plain(style: str, text: str) -> str:
    return text


def _painted(style: str, text: str) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _lines_of(path: str) -> list[str]:
    """The lines of a local manifest; none when it cannot be read any more, or is at a URL."""
    try:
        location = locate(path)
        data = read_bytes(location, most_bytes=MAX_MANIFEST_BYTES) if location.is_local else b""
    except (OSError, UnusableError):
        return []
    return _LINE_END.split(data.decode("utf-8-sig", "replace"))


def mark_line(line: str, column: int, width: int) -> tuple[str, str]:
    """A line cut to `width` cells around its `column` (from 1), and the line of carets that goes below it.

    The carets are under the entry that begins at the column: `key: value`, without a comment.
    """
    start = min(max(column - 1, 0), len(line))
    end = max(_end_of_entry(line, start), start + 1)
    # A line may have a million characters; those far away are not shown.
    first, last = max(0, start - width), min(len(line), start + 2 * width)
    pieces = {index: printable(line[index]) for index in range(first, last)}
    before = width // 3 if sum(cell_len(piece) for piece in pieces.values()) > width - 8 else width
    left, right = start, start
    n_cells = 0
    while left > first and n_cells + cell_len(pieces[left - 1]) <= before:
        left -= 1
        n_cells += cell_len(pieces[left])
    while right < last and n_cells + cell_len(pieces[right]) <= width - 8:
        n_cells += cell_len(pieces[right])
        right += 1
    ahead = "... " if left > 0 else ""
    shown = ahead + "".join(pieces[index] for index in range(left, right)) + (" ..." if right < len(line) else "")
    offset = len(ahead) + sum(cell_len(pieces[index]) for index in range(left, start))
    marked = sum(cell_len(pieces[index]) for index in range(start, min(end, right)))
    return shown, " " * offset + "^" * max(1, marked)


def _end_of_entry(line: str, start: int) -> int:
    """Where `key: value` ends that begins at `start`: before a comment, or what separates it from its neighbours."""
    opened = sum(line[:start].count(char) for char in "[{") - sum(line[:start].count(char) for char in "]}")
    is_flow, depth, quote = opened > 0, 0, ""
    end = start
    for index in range(start, len(line)):
        char = line[index]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (index == start or line[index - 1] in " [{,:"):
            quote = char
        elif char == "#" and index and line[index - 1] in " \t":
            break
        elif char in "[{":
            depth += 1
        elif is_flow and depth == 0 and char in ",]}":
            break
        elif char in "]}":
            depth -= 1
        end = index + 1 if not char.isspace() else end
    return end
