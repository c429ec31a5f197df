"""`rembert-ray verify`: every file below an output, read again and held against the stored plan.

Everything is listed, hidden and unknown names too. Each part is read whole (storage/examine.py), the seal of each
control file is checked, and what is there is compared with what should be there. Needs neither Ray nor torch nor the
model nor the input. It writes and deletes nothing: what to do is printed (report/findings.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rembert_ray.errors import Fault, ShardError, StorageError, UnusableError
from rembert_ray.plan import PLAN_PATH, Plan
from rembert_ray.report import status
from rembert_ray.report.findings import Finding, Kind, Remedy, Verification
from rembert_ray.storage.below import names_below
from rembert_ray.storage.commit import Part, parse_part_name, part_name
from rembert_ray.storage.examine import Examined, examine
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.gc import is_leftover
from rembert_ray.storage.lease import lease_holder
from rembert_ray.storage.location import Location, locate, read_bytes
from rembert_ray.storage.parquet import read_footer_values
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.seal import broken_seal

# Each holds one whole object in memory.
N_AT_ONCE = 4
_WINDOW = 256
_PLAN_NAME = "/".join(PLAN_PATH)
_STATUS_NAME = f"{CONTROL_FOLDER}/{status.STATUS}"
_CONTROL_NAME = re.compile(
    rf"{status.SUCCESS}|{_STATUS_NAME}|{CONTROL_FOLDER}/"
    rf"(?:run\.json|report\.html|lease-\d{{6,}}|stacks-\w+\.txt|quarantine/\w+-\d+\.json)"
)
_PLAN_AGAIN = "the job's command stores the same plan again while manifest and input are the same; verify again then"


def verify(output: str, console: Console | None = None) -> Verification:
    """Look at a whole output; progress goes to `console` when that is a terminal.

    Raises `UnusableError` when there is no output, `StorageError` when the store refuses or gives out.
    """
    location = locate(output)
    # Asked first: what a run adds after the listing is then known to be its doing.
    holder = lease_holder(location)
    names = names_below(location)
    if not names:
        raise UnusableError(Fault(output, "nothing there", "name the output.path of a job that has been started"))
    return _Look(location, holder, names).result(console)


class _Look:
    """One look at one output."""

    def __init__(self, output: Location, holder: str, names: Sequence[str]) -> None:
        self.output = output
        self.names = names
        self.found = Verification(output, holder, n_files=len(names))
        self.plan = self._read_plan()
        self.records: dict[str, dict[str, Any]] = {}
        # Schema as text -> the schema, and (name, shard, rows) of the objects that have it.
        self.schemas: dict[str, tuple[pa.Schema, list[tuple[str, int, int]]]] = {}

    def result(self, console: Console | None) -> Verification:
        """Everything, in order."""
        parts = [name for name in self.names if parse_part_name(name) is not None]
        for name in sorted(set(self.names) - set(parts) - {_PLAN_NAME}):
            self._check_other(name)
        planned = self._planned(parts)
        self._check_parts(planned, console)
        self._check_schemas()
        if self.plan is not None:
            self._check_missing(self.plan, planned)
            self._check_success(self.plan)
        return self.found

    def _add(self, kind: Kind, name: str, what: str, remedy: Remedy, shard: int | None = None) -> None:
        self.found.findings.append(Finding(kind, name, what, remedy, shard))

    def _read(self, name: str) -> bytes | None:
        """A control file; None when it went away, as those of a run that is going on do."""
        location = self.output.child(name)
        try:
            data = read_bytes(location)
        except FileNotFoundError:
            return None
        except storage_errors() as error:
            raise StorageError(f"cannot read {explain(str(location), error)}") from error
        self.found.n_bytes += len(data)
        return data

    def _read_plan(self) -> Plan | None:
        data = self._read(_PLAN_NAME)
        if data is None:
            if not self.found.holder:
                self._add("missing", _PLAN_NAME, f"without it nobody knows what should be here; {_PLAN_AGAIN}", "run")
            return None
        try:
            plan = Plan.from_bytes(data, _PLAN_NAME)
        except UnusableError as error:
            self._add("damaged", _PLAN_NAME, f"{error.faults[0].what}; once it is deleted, {_PLAN_AGAIN}", "delete")
            return None
        again = Plan.build(plan.shards, plan.files, plan.schema, plan.fingerprint, plan.record)
        if again.plan_id != plan.plan_id:
            what = f"its lines are not those of the plan {plan.plan_id[:12]} that it says it is; once it is deleted, "
            self._add("altered", _PLAN_NAME, what + _PLAN_AGAIN, "delete")
        self.found.plan_id, self.found.n_shards = plan.plan_id, plan.n_shards
        return plan

    def _check_other(self, name: str) -> None:
        """A file that is neither a part nor the plan."""
        if _CONTROL_NAME.fullmatch(name):
            data = self._read(name)
            if data is not None and (fault := broken_seal(data)):
                self._add("damaged", name, fault, "delete")
            elif data is not None and not name.endswith((".txt", ".html")):
                self.records[name] = json.loads(data)
        elif is_leftover(name):
            if not self.found.holder:
                self._add("leftover", name, "left by a run that was killed; nothing reads it", "gc")
        elif (shard := self._shard_of_copy(name)) is not None:
            self._add("duplicated", name, f"its footer says that it is shard {shard}: it is there twice", "delete")
        else:
            self._add("foreign", name, "not a name that a job writes", "look")

    def _shard_of_copy(self, name: str) -> str | None:
        """Which shard of this plan a file of another name says to be."""
        try:
            values = read_footer_values(self.output.child(name)) if name.endswith(".parquet") else {}
        except (ShardError, ValueError):
            return None
        return values.get("shard") if self.plan is not None and values.get("plan_id") == self.plan.plan_id else None

    def _planned(self, names: Sequence[str]) -> dict[int, str]:
        """Shard -> name of the parts that belong here; the others become findings."""
        planned: dict[int, str] = {}
        digest = None if self.plan is None else self.plan.fingerprint.digest
        for name in names:
            shard, fingerprint = parse_part_name(name) or (-1, "")
            if digest is not None and fingerprint != digest:
                self._add("foreign", name, f"a part of another job: the fingerprint of this one is {digest}", "look")
            elif self.plan is not None and shard >= self.plan.n_shards:
                self._add("foreign", name, f"the plan has the shards 0 to {self.plan.n_shards - 1} only", "look")
            elif name != part_name(shard, fingerprint) or shard in planned:
                self._add("duplicated", name, f"not the name of shard {shard}, which it says it is", "delete")
            else:
                planned[shard] = name
        return planned

    def _check_parts(self, planned: dict[int, str], console: Console | None) -> None:
        found = self.found
        columns = (TextColumn("{task.percentage:>3.0f} %"), BarColumn(bar_width=30), TextColumn("{task.description}"))
        is_shown = console is not None and console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=not is_shown) as bar:
            line = bar.add_task("reading", total=len(planned))
            for number, (shard, object_) in enumerate(self._examined(planned), start=1):
                found.n_bytes += object_.n_bytes
                if object_.kind != "good":
                    remedy: Remedy = "run" if object_.kind == "missing" else "delete"
                    self._add(object_.kind, planned[shard], object_.fault, remedy, shard)
                else:
                    found.n_whole += 1
                    found.n_rows += object_.n_rows
                    same = self.schemas.setdefault(str(object_.schema), (object_.schema, []))[1]
                    same.append((planned[shard], shard, object_.n_rows))
                bar.update(line, advance=1, description=f"{number:,} of {len(planned):,} objects")

    def _examined(self, planned: dict[int, str]) -> Iterator[tuple[int, Examined]]:
        """Each part with what it turned out to be, in the order of the shards; a few are read at a time."""
        numbers = sorted(planned)
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            for start in range(0, len(numbers), _WINDOW):
                window = numbers[start : start + _WINDOW]
                places = [self.output.child(planned[number]) for number in window]
                yield from zip(window, pool.map(examine, places, self._parts(window)), strict=True)

    def _parts(self, numbers: Sequence[int]) -> list[Part | None]:
        """What the plan says of these shards."""
        if self.plan is None:
            return [None] * len(numbers)
        digest = self.plan.fingerprint.digest
        shards = self.plan.iter_shards(np.array(numbers, np.int64))
        return [Part(s.index, digest, s.plan_id, s.url, s.row_start, s.n_rows, attempt="") for s in shards]

    def _check_schemas(self) -> None:
        """All objects have the schema that most of them have, with the kept columns as the plan has them."""
        if not self.schemas:
            return
        most, _ = max(self.schemas.values(), key=lambda entry: len(entry[1]))
        for schema, objects in self.schemas.values():
            wrong = self._wrong_kept(schema) or _difference(schema, most)
            for name, shard, n_rows in objects if wrong else []:
                self.found.n_whole -= 1
                self.found.n_rows -= n_rows
                self._add("altered", name, wrong, "delete", shard)

    def _wrong_kept(self, schema: pa.Schema) -> str:
        """What is wrong with the kept columns of a schema."""
        if self.plan is None:
            return ""
        renamed = self.plan.record.get("manifest", {}).get("input", {}).get("rename", {})
        kept = pa.schema([field.with_name(renamed.get(field.name, field.name)) for field in self.plan.schema])
        there = pa.schema([schema.field(name) for name in kept.names if name in schema.names])
        return _difference(there, kept)

    def _check_missing(self, plan: Plan, planned: dict[int, str]) -> None:
        missing = np.setdiff1d(np.arange(plan.n_shards), np.array(sorted(planned), np.int64)).tolist()
        if self.found.holder:
            self.found.n_not_yet = len(missing)
            return
        for shard in missing:
            record = self.records.get(f"{CONTROL_FOLDER}/{status.QUARANTINE}/shard-{shard:08d}.json", {})
            what = f"given up by run {record.get('run')}: {record.get('reason')}" if record else ""
            self._add("missing", part_name(shard, plan.fingerprint.digest), what, "run", shard)

    def _check_success(self, plan: Plan) -> None:
        content = self.records.get(status.SUCCESS)
        wanted = {"plan": plan.plan_id, "fingerprint": plan.fingerprint.digest, "shards": plan.n_shards}
        wanted |= {"rows_in": plan.n_rows, "rows_out": plan.n_rows}
        if content is not None:
            wrong = [f"{key} {content.get(key)!r} instead of {value!r}" for key, value in wanted.items()]
            wrong = [text for text, key in zip(wrong, wanted, strict=True) if content.get(key) != wanted[key]]
            if wrong:
                self._add("altered", status.SUCCESS, f"it says {', '.join(wrong)}", "delete")
            self.found.is_closed = not wrong
        elif status.SUCCESS not in self.names and not self.found.holder and not self.found.shards_to_make:
            self._add("unclosed", status.SUCCESS, self._why_unclosed(plan), "run")

    def _why_unclosed(self, plan: Plan) -> str:
        if plan.refused:
            return f"not there: {len(plan.refused):,} input files were refused, so that this is not all of the input"
        last = self.records.get(_STATUS_NAME, {})
        return f"not there; the last run ended as {last.get('state')!r} with exit code {last.get('exit_code')}"


def _difference(schema: pa.Schema, wanted: pa.Schema) -> str:
    """In what a schema differs from another one; "" when it does not."""
    if schema.equals(wanted):
        return ""
    ours, theirs = ({field.name: str(field.type) for field in fields} for fields in (schema, wanted))
    names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    each = [f"{name} {ours.get(name, 'is not there')} instead of {theirs.get(name, 'nothing')}" for name in names]
    return "its schema is another one: " + (", ".join(each) or "the order of the columns, or which may be null")
