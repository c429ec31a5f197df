"""What `rembert-ray verify` found in an output, for a person and as JSON, and what to do about it.

Commands are only printed here; nothing runs or deletes anything.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rembert_ray.errors import printable
from rembert_ray.plan import format_bytes
from rembert_ray.storage.location import Location

EXIT_GOOD, EXIT_FINDINGS, EXIT_UNFINISHED = 0, 3, 75

Kind = Literal["missing", "truncated", "altered", "duplicated", "foreign", "leftover", "damaged", "unclosed"]
Remedy = Literal["delete", "look", "gc", "run"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the plan has it.

    `name` is relative to the output, `what` may be empty where the kind says it all, `shard` is the one that a run
    must make again (None: none). `remedy`: delete the file; look at it first, it is not ours; let `rembert-ray gc`
    remove it; only run again.
    """

    kind: Kind
    name: str
    what: str
    remedy: Remedy
    shard: int | None = None


@dataclass
class Verification:
    """The result: counts of what was read, and the findings. `holder` is the run that is going on, or ""."""

    output: Location
    holder: str = ""
    plan_id: str = ""
    n_shards: int = 0
    n_rows: int = 0
    n_objects: int = 0
    n_whole: int = 0
    n_bytes: int = 0
    n_files: int = 0
    n_not_yet: int = 0
    is_closed: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: all is there and whole; 3: there are findings; 75: a run is going on, and so far all is whole.

        Leftovers are told and do not count: a night that was killed and resumed has them, and its rows are good.
        """
        if any(finding.kind != "leftover" for finding in self.findings):
            return EXIT_FINDINGS
        return EXIT_UNFINISHED if self.n_not_yet or not self.is_closed else EXIT_GOOD

    @property
    def shards_to_make(self) -> list[int]:
        """The shards that the next run makes once what is to be deleted is deleted."""
        return sorted({finding.shard for finding in self.findings if finding.shard is not None})

    def commands(self, remedy: Remedy) -> list[str]:
        """The exact commands that remove what has this remedy."""
        names = sorted({finding.name for finding in self.findings if finding.remedy == remedy})
        return [_remove(self.output, name) for name in names]

    def lines(self) -> Iterator[str]:
        """For a terminal; the last line is the next command."""
        yield f"output      {self.output}"
        if self.holder:
            yield f"running     {self.holder} holds the lease: {self.n_not_yet:,} shards are not there yet"
        of_plan = f"{self.n_shards:,} planned" if self.plan_id else "nobody knows how many"
        yield (
            f"objects     {self.n_whole:,} of {of_plan} are there and whole: {self.n_rows:,} rows; "
            f"read {format_bytes(self.n_bytes)} in {self.n_files:,} files"
        )
        for finding in self.findings:
            if finding.what:
                yield f"{finding.kind:<11} {printable(finding.name)}: {printable(finding.what)}"
        missing = [finding.shard for finding in self.findings if finding.kind == "missing"]
        if absent := [shard for shard in missing if shard is not None]:
            yield f"missing     {_ranges(absent)}"
        yield from (f"delete      {command}" for command in self.commands("delete"))
        yield from (f"not ours    look at it, then: {command}" for command in self.commands("look"))
        yield f"next        {self._next()}"

    def _next(self) -> str:
        if self.holder:
            return f"when the run has ended: rembert-ray verify {shlex.quote(str(self.output))}"
        if not self.plan_id:
            return "run the job's command again, which stores the plan; then verify again"
        if shards := self.shards_to_make:
            return f"run the job's command again: it makes {_ranges(shards)}, and nothing else; then verify again"
        if any(finding.remedy in ("run", "delete") for finding in self.findings):
            return "run the job's command again: it computes nothing, and closes the output; then verify again"
        if any(finding.remedy == "gc" for finding in self.findings):
            return f"when no run is going on: rembert-ray gc {shlex.quote(str(self.output))} --older-than 0"
        return "nothing to do" if not self.findings else "verify again"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        values = asdict(self) | {"output": str(self.output), "exit_code": self.exit_code}
        commands = {"delete": self.commands("delete"), "look": self.commands("look")}
        return values | {"commands": commands, "shards_to_make": self.shards_to_make, "next": self._next()}


def _remove(output: Location, name: str) -> str:
    place = f"{str(output).rstrip('/')}/{name}"
    verb = "aws s3 rm" if output.is_s3 else "rm" if output.is_local else "remove"
    return f"{verb} {_quoted(place)}"


def _quoted(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    # $'...' of bash, ksh and zsh: a name may hold any byte but NUL.
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in os.fsencode(text))
    return f"$'{''.join(plain)}'"


def _ranges(shards: Sequence[int]) -> str:
    """`[1, 3, 4, 5]` -> `4 shards: 1, 3 to 5`."""
    runs: list[list[int]] = []
    for shard in sorted(shards):
        if runs and shard == runs[-1][1] + 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
    return f"{len(shards):,} shard{'s' if len(shards) > 1 else ''}: {shown}"
