"""Where a job stands, from its output alone: also while it runs, and without Ray, torch or the model.

What is done is what objects are there; the status and the lease only tell who works and how fast. Nothing is changed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rembert_ray.errors import StoppedError, StorageError, printable
from rembert_ray.plan import Plan
from rembert_ray.report import status
from rembert_ray.report.progress import format_duration
from rembert_ray.storage.commit import list_parts
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.lease import Holder, last_holder, store_age_s
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.storage.probe import CONTROL_FOLDER

N_RECORDS_SHOWN = 20
# A run writes its status every ten seconds.
SILENT_AFTER_S = 60.0
EXIT_COMPLETE, EXIT_QUARANTINED, EXIT_RESUMABLE = 0, 3, StoppedError.exit_code


@dataclass(frozen=True)
class Record:
    """A shard that was given up (`shard-...`) or a file that was refused (`file-...`), and why."""

    name: str
    source: str
    reason: str

    @property
    def is_shard(self) -> bool:
        """Whether a run of the same command tries it again."""
        return self.name.startswith("shard-")


@dataclass
class Standing:
    """One look at an output.

    last: the last status, None when there is none that can be read; status_age_s: by the clock of the store.
    records: the first of the quarantine; n_records: how many there are.
    """

    output: Location
    is_closed: bool
    n_shards: int
    n_rows: int
    shards_committed: int
    rows_committed: int
    holder: Holder | None
    last: dict[str, Any] | None
    status_age_s: float | None
    n_records: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether somebody holds the lease."""
        return self.holder is not None and self.holder.is_held

    @property
    def is_status_of_holder(self) -> bool:
        """Whether the run that holds the lease has written a status yet."""
        return self.last is not None and self.holder is not None and self.last["run"] == self.holder.owner.run_id

    @property
    def exit_code(self) -> int:
        """0: closed; 75: running, or to be resumed; 3: the last run ended with quarantined shards or over budget."""
        if self.is_closed:
            return EXIT_COMPLETE
        is_incomplete = self.last is not None and self.last["exit_code"] == EXIT_QUARANTINED
        return EXIT_QUARANTINED if is_incomplete and not self.is_running else EXIT_RESUMABLE

    @property
    def run_exit_code(self) -> int:
        """That of the last run; 75 when it was killed, or none has written a status."""
        code = None if self.last is None else self.last["exit_code"]
        return EXIT_COMPLETE if self.is_closed else EXIT_RESUMABLE if code is None else int(code)

    @property
    def next_command(self) -> str:
        """What to do now."""
        output = shlex.quote(str(self.output))
        if self.is_running:
            return f"rembert-ray status {output} --watch"
        if self.is_closed:
            return f"rembert-ray sample {output}"
        if any(record.is_shard for record in self.records):
            return f"run the job's command again, or rembert-ray retry {output}: both try the quarantined shards again"
        if self.records and self.shards_committed == self.n_shards:
            return "repair or remove the refused files, and run into a new output.path to have their rows too"
        if self.exit_code == EXIT_QUARANTINED:
            return f"look at {CONTROL_FOLDER}/report.html there; then run the job's command again, with other limits"
        return "run the job's command again: it resumes"

    def lines(self) -> Iterator[str]:
        """For a terminal; the last line is what to do next."""
        closed = "complete, _SUCCESS is there" if self.is_closed else "not complete"
        yield f"output      {self.output}: {closed}"
        yield f"shards      {self.shards_committed:,} of {self.n_shards:,} committed"
        yield f"rows        {self.rows_committed:,} of {self.n_rows:,}"
        yield from self._describe_holder()
        yield from self._describe_run()
        for record in self.records:
            what = "quarantined" if record.is_shard else "refused    "
            yield f"{what} {record.name}: {printable(record.source)}: {printable(record.reason)}"
        if self.n_records > len(self.records):
            yield f"            and {self.n_records - len(self.records):,} more in {CONTROL_FOLDER}/{status.QUARANTINE}"
        yield f"next        {self.next_command}"

    def _describe_holder(self) -> Iterator[str]:
        holder = self.holder
        if holder is None or holder.is_released:
            return
        heartbeat = "" if holder.age_s is None else f", last heartbeat {format_duration(max(holder.age_s, 0))} ago"
        since = f"{holder.owner} since {holder.since}{heartbeat}"
        yield f"running     {since}" if holder.is_held else f"dead        {since}: it ended without a word"
        if not holder.is_held:
            return
        if not self.is_status_of_holder:
            yield "            it starts: no status of it yet"
        elif self.status_age_s is not None and self.status_age_s > SILENT_AFTER_S:
            look = f"it may be dead or hang: look at process {holder.owner.pid} on {holder.owner.host}"
            yield f"silent      it says nothing since {format_duration(self.status_age_s)}; {look}"

    def _describe_run(self) -> Iterator[str]:
        last = self.last
        if last is None:
            yield "last run    no status yet, or it is damaged"
            return
        age = "" if self.status_age_s is None else f", {format_duration(max(self.status_age_s, 0))} ago"
        code = "" if last["exit_code"] is None else f", exit code {last['exit_code']}"
        name = "this run  " if self.is_running and self.is_status_of_holder else "last run  "
        yield f"{name}  {last['run']} {last['state']}{code} ({last['updated']}{age})"
        if last["message"]:
            yield f"            {printable(last['message'])}"
        eta = f", {format_duration(last['eta_s'])} to go" if last["state"] == "running" and last["eta_s"] else ""
        yield (
            f"            {last['rows']['committed_this_run']:,} rows, {last['rows']['with_error_this_run']:,} with an "
            f"error, {last['rows_per_s']:,.0f} rows/s, {last['tokens_per_s']:,.0f} tokens/s{eta}"
        )

    def short(self) -> str:
        """One line for a log."""
        last = self.last if self.is_status_of_holder else None
        counts = f"{self.shards_committed:,}/{self.n_shards:,} shards, {self.rows_committed:,} rows"
        if last is None:
            return f"{counts}{', starting' if self.is_running else ''}"
        eta = f", {format_duration(last['eta_s'])} to go" if last["state"] == "running" and last["eta_s"] else ""
        errors = f"{last['rows']['with_error_this_run']:,} errors, {last['shards']['failed']:,} shards failed"
        return f"{counts}, {last['rows_per_s']:,.0f} rows/s, {last['tokens_per_s']:,.0f} tokens/s, {errors}{eta}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        holder = self.holder
        return {
            "output": str(self.output),
            "is_closed": self.is_closed,
            "is_running": self.is_running,
            "shards": {"planned": self.n_shards, "committed": self.shards_committed},
            "rows": {"planned": self.n_rows, "committed": self.rows_committed},
            "holder": holder and asdict(holder) | {"is_held": holder.is_held},
            "last_run": self.last,
            "status_age_s": self.status_age_s,
            "quarantine": {"count": self.n_records, "first": [asdict(record) for record in self.records]},
            "exit_code": self.exit_code,
            "next": self.next_command,
        }


class Observer:
    """Looks at an output again and again. The plan is read once; objects are listed when `look` is told to."""

    def __init__(self, output: Location, plan: Plan) -> None:
        self.output = output
        self._digest = plan.fingerprint.digest
        self._rows = plan.shards["n_rows"].to_numpy()
        self._n_shards = self._n_rows = 0
        self._names: list[str] | None = None
        self._records: list[Record] = []

    def look(self, *, lists: bool = True) -> Standing:
        """Where the job stands. Without `lists`, counts of shards are those of the last listing or the status.

        Raises:
            StorageError: the store refuses or gives out.
        """
        try:
            return self._look(lists)
        except storage_errors() as error:
            raise StorageError(f"cannot look at {explain(str(self.output), error)}") from error

    def _look(self, lists: bool) -> Standing:
        # In this order: a run that ends in between is seen as running, never as dead.
        holder, last = last_holder(self.output), status.read(self.output)
        is_closed = status.is_success(self.output)
        if lists:
            there = list_parts(self.output, self._digest)
            there = there[there < len(self._rows)]
            self._n_shards, self._n_rows = len(there), int(self._rows[there].sum())
            self._read_records()
        counts = self._n_shards, self._n_rows
        if last is not None and holder is not None and holder.is_held and last["run"] == holder.owner.run_id:
            counts = max(counts, (last["shards"]["committed"], last["rows"]["committed"]))
        return Standing(
            self.output,
            is_closed,
            len(self._rows),
            int(self._rows.sum(dtype=np.int64)),
            *counts,
            holder,
            last,
            None if last is None else self._status_age_s(),
            len(self._names or ()),
            self._records,
        )

    def _status_age_s(self) -> float | None:
        try:
            return store_age_s(self.output.child(CONTROL_FOLDER, status.STATUS))
        except storage_errors():
            # Nothing may be written here that would tell the store's time.
            return None

    def _read_records(self) -> None:
        folder = self.output.child(CONTROL_FOLDER, status.QUARANTINE)
        names = sorted(list_names(folder, "shard-")) + sorted(list_names(folder, "file-"))
        if names == self._names:
            return
        self._names, self._records = names, []
        for name in names[:N_RECORDS_SHOWN]:
            try:
                values = json.loads(read_bytes(folder.child(name)))
                record = Record(name.removesuffix(".json"), str(values["source"]), str(values["reason"]))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                record = Record(name.removesuffix(".json"), "?", "the record cannot be read")
            self._records.append(record)
