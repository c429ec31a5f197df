"""Counts of a run, added up from receipts. Its size does not grow with the number of shards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

PHASES = ("read", "encode", "infer", "decode", "commit")


@dataclass
class Tally:
    """Where a run stands.

    n_shards, n_rows, n_planned_bytes: of the plan; bytes are those of the text and kept columns as footers tell them.
    n_shards_before, n_rows_before, planned_bytes_before: committed by earlier runs.
    The other counts are of this run. seconds: worker seconds of each phase, added over workers.
    """

    n_shards: int
    n_rows: int
    n_planned_bytes: int
    n_shards_before: int = 0
    n_rows_before: int = 0
    planned_bytes_before: int = 0
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
