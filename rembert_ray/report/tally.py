"""Counts of a run, added up from receipts. Its size does not grow with the number of shards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PHASES = ("read", "encode", "infer", "decode", "commit")


@dataclass
class Tally:
    """Where a run stands.

    n_shards, n_rows, n_planned_bytes: of the plan; bytes are those of the text and kept columns as footers tell them.
    n_shards_before, n_rows_before, planned_bytes_before: committed by earlier runs.
    rows_with_error_before: of those rows, where it was asked for.
    The other counts are of this run. seconds: worker seconds of each phase, added over workers.
    """

    n_shards: int
    n_rows: int
    n_planned_bytes: int
    n_shards_before: int = 0
    n_rows_before: int = 0
    planned_bytes_before: int = 0
    rows_with_error_before: int = 0
    planned_bytes_done: int = 0
    shards_done: int = 0
    rows_done: int = 0
    rows_with_error: int = 0
    shards_failed: int = 0
    n_tokens: int = 0
    n_tokens_computed: int = 0
    n_windows: int = 0
    n_bytes: int = 0
    batch_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    started: float = field(default_factory=time.monotonic)
    first_receipt: float | None = None

    @classmethod
    def of_plan(cls, shards: pa.Table, missing: npt.NDArray[np.int64]) -> Self:
        """Nothing done yet in this run; what is not missing was done before. `shards`: see `Plan.shards`."""
        rows, n_bytes = shards["n_rows"].to_numpy(), shards["bytes"].to_numpy()
        return cls(
            n_shards=len(rows),
            n_rows=int(rows.sum()),
            n_planned_bytes=int(n_bytes.sum()),
            n_shards_before=len(rows) - len(missing),
            n_rows_before=int(rows.sum() - rows[missing].sum()),
            planned_bytes_before=int(n_bytes.sum() - n_bytes[missing].sum()),
        )

    def start(self) -> None:
        """The work begins now."""
        self.started = time.monotonic()

    def add(self, facts: dict[str, Any], planned_bytes: int) -> None:
        """One committed shard, of that many planned bytes."""
        self.first_receipt = self.first_receipt or time.monotonic()
        self.shards_done += 1
        self.planned_bytes_done += planned_bytes
        self.rows_done += facts["n_rows"]
        self.rows_with_error += facts["n_errors"]
        for name in ("n_tokens", "n_tokens_computed", "n_windows", "n_bytes"):
            setattr(self, name, getattr(self, name) + facts.get(name, 0))
        # The last one: where a device ran out of memory it is less than it was.
        self.batch_tokens = facts.get("batch_tokens", 0)
        for phase in PHASES:
            self.seconds[phase] += facts.get(f"{phase}_s", 0.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began to work."""
        return time.monotonic() - self.started

    @property
    def rows_per_s(self) -> float:
        """Rows of this run over its time."""
        return self.rows_done / max(self.elapsed_s, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        """Tokens of text of this run (special tokens included, padding does not exist) over its time."""
        return self.n_tokens / max(self.elapsed_s, 1e-9)

    @property
    def share_done(self) -> float:
        """How much of the plan is committed, 0 to 1, by bytes of text: rows may be words or books."""
        return (self.planned_bytes_before + self.planned_bytes_done) / max(self.n_planned_bytes, 1)

    @property
    def share_with_error(self) -> float:
        """Rows with an error over all rows that are committed, 0 to 1."""
        n_rows = self.n_rows_before + self.rows_done
        return (self.rows_with_error_before + self.rows_with_error) / max(n_rows, 1)

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the rate of this run, None before anything is known."""
        if not self.planned_bytes_done:
            return None
        left = self.n_planned_bytes - self.planned_bytes_before - self.planned_bytes_done
        return left * self.elapsed_s / self.planned_bytes_done

    def to_dict(self) -> dict[str, Any]:
        """For `status.json` and `_SUCCESS`."""
        return {
            "shards": {
                "planned": self.n_shards,
                "committed": self.n_shards_before + self.shards_done,
                "committed_this_run": self.shards_done,
                "failed": self.shards_failed,
            },
            "rows": {
                "planned": self.n_rows,
                "committed": self.n_rows_before + self.rows_done,
                "committed_this_run": self.rows_done,
                "with_error_this_run": self.rows_with_error,
            },
            "tokens_this_run": self.n_tokens,
            "tokens_computed_this_run": self.n_tokens_computed,
            "bytes_this_run": self.n_bytes,
            "elapsed_s": round(self.elapsed_s, 3),
            "rows_per_s": round(self.rows_per_s, 3),
            "tokens_per_s": round(self.tokens_per_s, 3),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "worker_seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
        }
