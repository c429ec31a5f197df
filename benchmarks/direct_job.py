"""Jobs that `rembert-ray run` cannot express, for `benchmarks.scaling`; each in a fresh process, so that memory counts.

    python -m benchmarks.direct_job sleep MANIFEST SECONDS_PER_TOKEN    on Ray, a pause for the forward
    python -m benchmarks.direct_job stages MANIFEST                     no Ray: a shard after the other in one process

A pause needs no core, so two cores can drive many nodes: everything but the forward is the job's own. It must not
measure anything: the output says when each shard was committed (`benchmarks.commits`).
"""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from rembert_ray.check import check_job
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.runner import Engine, RunFacts, RunResult
from rembert_ray.job import Job
from rembert_ray.job_spec import job_spec
from rembert_ray.manifest import load_manifest
from rembert_ray.models.config import EncoderConfig
from rembert_ray.plan import freeze_plan
from rembert_ray.report.narration import Narrator
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope, seal, unseal
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import Write
from rembert_ray.storage.lease import Lease, LeaseOwner
from rembert_ray.storage.location import Location
from rembert_ray.tasks.tag import Tag, TagHead


class SleepingEngine:
    """Labels that follow from the ids alone, after a pause as long as the forward would take."""

    token_values = TagHead.token_values

    def __init__(self, n_labels: int, seconds_per_token: float) -> None:
        self.n_labels = n_labels
        self.seconds_per_token = seconds_per_token

    def run(self, table: WindowTable) -> RunResult:
        """See `Engine.run`."""
        n_tokens = len(table.ids)
        time.sleep(n_tokens * self.seconds_per_token)
        places = np.repeat(table.starts[:-1], np.diff(table.kept_splits)) + table.kept
        labels = (table.ids[places] % self.n_labels).astype(np.int32)
        facts = RunFacts(len(table), n_tokens, len(table), n_tokens, n_batches=1)
        return RunResult({"label": labels, "score": np.ones(len(labels), np.float32)}, {}, facts)


class SleepingTag(Tag):
    """`tag` with a `SleepingEngine` and no model."""

    def __init__(self, tag: Tag, n_labels: int, seconds_per_token: float) -> None:
        super().__init__(tag.parameters)
        self.n_labels = n_labels
        self.seconds_per_token = seconds_per_token

    def load_model(self, folder: Location, config: EncoderConfig, dtype: torch.dtype, device: torch.device) -> Any:
        """See `Task.load_model`."""
        return torch.nn.Linear(1, 1)

    def engine(self, model: Any, device: torch.device, batch_tokens: int | None) -> Engine:
        """See `Task.engine`."""
        return SleepingEngine(self.n_labels, self.seconds_per_token)


def start(manifest: str, seconds_per_token: float | None) -> Job:
    """The job of a manifest as `rembert_ray.job.run` makes it; with seconds a token its task sleeps."""
    checked = check_job(load_manifest(manifest))
    if seconds_per_token is not None:
        task = SleepingTag(cast(Tag, checked.task), len(checked.config.labels), seconds_per_token)
        checked = replace(checked, task=task)
    run_id = secrets.token_hex(6)
    lease = Lease.acquire(checked.output, LeaseOwner.this_process(run_id))
    return Job(checked, freeze_plan(checked.output, checked.plan), run_id, lease, Narrator(), np.zeros(0, np.int64))


def run_stages(job: Job) -> None:
    """The stages of an actor and of both workers, one shard after the other, one thread."""
    spec = job_spec(job.checked, job.plan, job.run_id, n_threads=1)
    encode, infer, write = Encode(spec), Infer(spec), Write(spec)
    for shard in job.plan.iter_shards(job.missing):
        (receipt,) = unseal(write(infer(encode(seal([Envelope(shard)])))))
        if receipt.failure:
            raise SystemExit(receipt.failure)


def main() -> None:
    """Run one job to its end."""
    kind, manifest, *seconds_per_token = sys.argv[1:]
    job = start(manifest, float(seconds_per_token[0]) if seconds_per_token else None)
    with job.lease:
        if kind == "stages":
            run_stages(job)
        elif exit_code := job.run():
            raise SystemExit(exit_code)


if __name__ == "__main__":
    main()
