"""Runs the shards of a job wave by wave, and watches: receipts, the lease, the status, and that there is progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rembert_ray import cluster
from rembert_ray.cluster import Pools
from rembert_ray.dispatch import Dispatch, Wave
from rembert_ray.errors import StalledError
from rembert_ray.plan import Plan
from rembert_ray.report.progress import ProgressLine
from rembert_ray.report.tally import Tally
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.lease import Lease
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import put_replacing
from rembert_ray.storage.seal import sealed_text

if TYPE_CHECKING:
    from rembert_ray.report.metrics import Metrics

STATUS_INTERVAL_S = 10.0


@dataclass
class Waves:
    """One run of the pipeline over what `dispatch` hands out.

    stall_s: seconds without a shard that comes back after which the run ends; thrice as long while suspects are tried.
    write_status: called every ten seconds.
    """

    plan: Plan
    spec: JobSpec
    pools: Pools
    stall_s: float
    dispatch: Dispatch
    tally: Tally
    lease: Lease
    line: ProgressLine
    metrics: Metrics
    write_status: Callable[[], None]
    _came_back_at: float = field(default=0.0, init=False)
    _status_at: float = field(default=float("-inf"), init=False)

    def run(self) -> None:
        """Until every shard is committed or given up.

        Raises:
            StalledError: no progress for `stall_s`; the stacks of all processes are beside the output.
            WorkersLostError: Ray loses workers again and again, whatever they work on.
            LeaseHeldError: another run has taken over the output.
        """
        from rembert_ray.pipeline import Receipts, WorkersLostError, build

        self._came_back_at = time.monotonic()
        while wave := self.dispatch.next_wave():
            if wave.on_probation:
                n_suspects = f"{len(wave.shards):,} shard(s) ended or failed a process"
                words = f"suspects    {n_suspects}: tried in child processes, to find the rows that do it"
                self.line.narrator.say("suspects", words, level="warning", shards=len(wave.shards))
            shards = list(self.plan.iter_shards(wave.shards))
            receipts = Receipts(build(shards, self.spec, self.pools, on_probation=wave.on_probation))
            try:
                for receipt in self._watch(receipts, wave):
                    self._take(receipt)
            except WorkersLostError as error:
                if not self.dispatch.lose_workers():
                    raise
                self.metrics.workers_lost()
                self.line.narrator.say("retry", f"retry       {error}", level="warning", shards=len(wave.shards))

    def _take(self, receipt: Envelope) -> None:
        shard = receipt.shard.index
        if receipt.failure is None:
            self.dispatch.finish(shard)
            self.tally.add(receipt.facts, self.plan.shards["bytes"][shard].as_py())
            self.metrics.committed(receipt.facts)
        else:
            self.metrics.failed(is_suspect=receipt.is_suspect)
            stacks = receipt.facts.get("stacks", "")
            self.dispatch.fail(shard, receipt.failure, is_suspect=receipt.is_suspect, stacks=stacks)
        self.tally.shards_failed = len(self.dispatch.failures)

    def _watch(self, receipts: Iterable[Envelope | None], wave: Wave) -> Iterator[Envelope]:
        """Pass receipts on; between them keep the line, the status and the lease, and look for a stall."""
        stall_s = self.stall_s * (3 if wave.on_probation else 1)
        for receipt in receipts:
            self.lease.check()
            if receipt is not None:
                self._came_back_at = time.monotonic()
                yield receipt
            elif time.monotonic() - self._came_back_at > stall_s:
                raise StalledError(
                    f"no shard came back for {stall_s:g} s (limits.stall_s). Either the cluster lacks what the workers "
                    f"ask for (`ray status`), or a worker hangs. {self._leave_stacks()}. Run the same command to resume"
                )
            self.line.show()
            if time.monotonic() - self._status_at > STATUS_INTERVAL_S:
                self._status_at = time.monotonic()
                self.write_status()
                self.metrics.refresh()

    def _leave_stacks(self) -> str:
        """Leave the stacks of the driver and of all workers beside the output, and say where."""
        place = self.spec.output.child(CONTROL_FOLDER, f"stacks-{self.spec.run_id}.txt")
        put_replacing(place, sealed_text(cluster.describe_workers(self.spec.run_id)))
        return f"What every process was doing is in {place}"
