"""What Prometheus sees of a run: counters and gauges of the driver, made from the receipts of shards.

Exported by Ray's agent on the driver's node (`ray start --metrics-export-port`), there with the prefix `ray_`, counters
with `_total` behind. The agent keeps them after the driver has ended, so that the time of the last success stays. The
dashboard and the alert rules in `manifests/grafana/` use these names; a test compares them with those that a real run
exports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ray.util.metrics import Counter, Gauge, Metric

from rembert_ray.report.tally import PHASES, Tally

PREFIX = "rembert_ray_"
LABELS = ("task", "output")
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rows": ("Rows committed by this run.", ()),
    "tokens": ("Tokens of text of committed rows; padding does not exist.", ()),
    "tokens_computed": ("Tokens that went through the model: equal windows of a shard are computed once.", ()),
    "batches": ("Forward passes.", ()),
    "flops": ("Useful floating-point operations: its rate is useful FLOP/s.", ()),
    "bytes_written": ("Bytes of committed objects.", ()),
    "stage_seconds": ("Worker seconds in a stage.", ("stage",)),
    "queue_seconds": ("Seconds that encoded shards waited for an infer actor.", ()),
    "idle_seconds": ("Seconds that infer actors waited for their next shard.", ()),
    "retries": ("Shards that came back without a result and are tried again, or on probation.", ("kind",)),
    "row_errors": ("Rows with an error value, by message without its numbers.", ("kind",)),
    "shards_committed": ("Shards committed by this run.", ()),
    "shards_failed": ("Shards given up by this run.", ()),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "shards_planned": ("Shards of the plan.", ()),
    "shards_there": ("Shards that are committed, by this run and by earlier ones.", ()),
    "time_to_go_seconds": ("Estimated seconds until the run ends.", ()),
    "last_progress_timestamp_seconds": ("When the last shard came back, or the run began (Unix time).", ()),
    "last_success_timestamp_seconds": ("When a run last closed an output with _SUCCESS (Unix time).", ()),
    "running": ("1 while a run works, 0 when it has ended.", ()),
    "drift_psi": ("Population stability index of a feature against the earlier run.", ("feature",)),
}


class Metrics:
    """The metrics of one run. Ray must be connected; what is not is counted nowhere and costs nothing."""

    def __init__(self, task: str, output: str, tally: Tally) -> None:
        self.tally = tally
        labels = {"task": task, "output": output}
        self._metrics: dict[str, Metric] = {}
        for kind, names in ((Counter, COUNTERS), (Gauge, GAUGES)):
            for name, (what, tags) in names.items():
                metric = kind(PREFIX + name, description=what, tag_keys=(*LABELS, *tags))
                metric.set_default_tags(labels)
                self._metrics[name] = metric
        self._free_since: dict[str, float] = {}
        self._gauges: dict[tuple[object, ...], tuple[float, dict[str, str]]] = {}
        self._set("shards_planned", tally.n_shards)
        self._set("shards_there", tally.n_shards_before)
        self._set("last_progress_timestamp_seconds", time.time())
        self._set("running", 1)

    def committed(self, facts: Mapping[str, Any]) -> None:
        """A shard is committed: `facts` of its receipt. The tally has it already."""
        for name, fact in _FACTS.items():
            self._count(name, facts.get(fact, 0))
        for phase in PHASES:
            self._count("stage_seconds", facts.get(f"{phase}_s", 0), stage=phase)
        for kind, n_rows in facts.get("error_kinds", {}).items():
            self._count("row_errors", n_rows, kind=kind)
        self._waiting(facts)
        self._count("shards_committed", 1)
        self._set("shards_there", self.tally.n_shards_before + self.tally.shards_done)
        self._set("last_progress_timestamp_seconds", time.time())
        if self.tally.eta_s is not None:
            self._set("time_to_go_seconds", self.tally.eta_s)

    def failed(self, *, is_suspect: bool) -> None:
        """A shard came back without a result."""
        self._count("retries", 1, kind="suspect" if is_suspect else "failed")
        self._set("last_progress_timestamp_seconds", time.time())

    def refresh(self) -> None:
        """Set all gauges again: Ray (2.60) forgets one that was not set since its last report, every ten seconds."""
        for (name, *_), (value, tags) in list(self._gauges.items()):
            self._set(str(name), value, **tags)

    def workers_lost(self) -> None:
        """Ray gave up on workers, and the wave is run again."""
        self._count("retries", 1, kind="workers lost")

    def ended(self, n_failed: int, *, is_success: bool, drift: Mapping[str, float]) -> None:
        """The run is over; `drift`: feature -> index."""
        self._count("shards_failed", n_failed)
        for feature, psi in drift.items():
            self._set("drift_psi", psi, feature=feature)
        if is_success:
            self._set("last_success_timestamp_seconds", time.time())
        self.stopped()

    def stopped(self) -> None:
        """The run is over, well or not."""
        self._set("running", 0)
        self._set("time_to_go_seconds", 0)
        self.refresh()

    def _waiting(self, facts: Mapping[str, Any]) -> None:
        """How long the shard waited for an actor, and the actor for the shard."""
        if "infer_at" not in facts or "encode_at" not in facts:
            return
        encoded, began = (datetime.fromisoformat(facts[f"{phase}_at"]).timestamp() for phase in ("encode", "infer"))
        self._count("queue_seconds", max(0.0, began - encoded - facts.get("encode_s", 0)))
        actor = facts.get("inferred_at", "")
        # Receipts of one actor may come back in another order: a gap that is not one counts nothing.
        if actor in self._free_since:
            self._count("idle_seconds", max(0.0, began - self._free_since[actor]))
        self._free_since[actor] = max(self._free_since.get(actor, 0.0), began + facts.get("infer_s", 0))

    def _count(self, name: str, value: float, **tags: str) -> None:
        counter = self._metrics[name]
        assert isinstance(counter, Counter)
        if value > 0:
            counter.inc(value, tags=tags)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name, *sorted(tags.items())] = (value, tags)
        gauge = self._metrics[name]
        assert isinstance(gauge, Gauge)
        gauge.set(value, tags=tags)


_FACTS = {
    "rows": "n_rows",
    "tokens": "n_tokens",
    "tokens_computed": "n_tokens_computed",
    "batches": "n_batches",
    "flops": "flops",
    "bytes_written": "n_bytes",
}
