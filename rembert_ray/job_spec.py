"""From a checked job to what its stages know. Only fields are filled in here; nothing is decided, read or started."""

from __future__ import annotations

from rembert_ray.check import CheckedJob
from rembert_ray.plan import Plan
from rembert_ray.report.narration import Style
from rembert_ray.stages.spec import JobSpec

SILENCES_PER_STALL = 3


def job_spec(
    checked: CheckedJob, plan: Plan, run_id: str, n_threads: int | None = None, log: Style = "words"
) -> JobSpec:
    """What every stage of a job knows; `plan` is the one that rules, `n_threads` those of an infer actor on CPU."""
    manifest = checked.manifest
    batch_tokens = manifest.resources.batch_tokens
    return JobSpec(
        task=checked.task,
        config=checked.config,
        model=checked.model,
        output=checked.output,
        columns=checked.columns,
        kept=plan.schema,
        renamed=manifest.input.rename,
        windows=checked.windows,
        fingerprint=plan.fingerprint.digest,
        plan_id=plan.plan_id,
        run_id=run_id,
        precision=checked.precision,
        runs_on_gpu=manifest.resources.gpus_per_actor > 0,
        batch_tokens=None if batch_tokens == "auto" else batch_tokens,
        n_threads=n_threads,
        storage_s=manifest.limits.storage_s,
        silence_s=manifest.limits.stall_s / SILENCES_PER_STALL,
        footer={"task": manifest.task},
        log=log,
    )
