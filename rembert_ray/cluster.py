"""Joining or starting Ray, and how many workers of which size a job gets. Imports ray only when it is called."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.manifest import Manifest

ENCODE_CPUS = 0.5
WRITE_CPUS = 0.25
CPUS_PER_CPU_ACTOR = 8


@dataclass(frozen=True)
class Pools:
    """Workers of a job: infer actors with their CPUs and GPUs, encode actors and as many that write, torch threads of a
    CPU actor."""

    actors: int
    actor_cpus: float
    actor_gpus: float
    encoders: int
    n_threads: int

    def __str__(self) -> str:
        device = f"{self.actor_gpus:g} GPU" if self.actor_gpus else f"{self.n_threads} threads"
        return f"{self.actors} infer actor(s) with {device} each, {self.encoders} encoder(s)"


def connect() -> None:
    """Join the cluster of `RAY_ADDRESS` (as in a submitted job), or start Ray on this machine.

    Raises:
        UnusableError: there is no cluster at that address.
    """
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    if not address:
        # Ray's core reports as errors what is normal for restartable actors, into the middle of the live line.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise UnusableError(
            Fault("RAY_ADDRESS", f"no Ray cluster at {address}: {error}", "unset it to run on this machine")
        ) from error


def size_pools(manifest: Manifest) -> Pools:
    """Decide what `auto` means on the cluster that we are connected to.

    Raises:
        UnusableError: the cluster cannot hold what the manifest asks for; the job would wait for ever.
    """
    import ray

    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return fit_pools(manifest, cluster.get("CPU", 0.0), cluster.get("GPU", 0.0))


def fit_pools(manifest: Manifest, cpus: float, gpus: float) -> Pools:
    """See `size_pools`; `cpus` and `gpus` are those of the whole cluster."""
    asked = manifest.resources
    actor_gpus = float(asked.gpus_per_actor)
    if asked.actors != "auto":
        actors = asked.actors
    elif actor_gpus:
        actors = max(1, int(gpus // actor_gpus))
    else:
        actors = max(1, int(cpus // CPUS_PER_CPU_ACTOR))
    # One core makes ids faster than one GPU eats them, two do with character offsets.
    encoders = asked.encoders if asked.encoders != "auto" else (2 * actors if actor_gpus else actors)
    if asked.cpus_per_actor != "auto":
        actor_cpus = float(asked.cpus_per_actor)
    elif actor_gpus:
        actor_cpus = 1.0
    else:
        spare = cpus - encoders * (ENCODE_CPUS + WRITE_CPUS)
        # An eighth less than the quarters that fit: jobs were seen to wait for ever where actors hold every CPU.
        actor_cpus = max(0.125, int(4 * spare / actors) / 4 - 0.125)
    n_threads = max(1, int(cpus // actors)) if asked.cpus_per_actor == "auto" else max(1, int(actor_cpus))
    needed = actors * actor_cpus + encoders * (ENCODE_CPUS + WRITE_CPUS)
    if needed > cpus or actors * actor_gpus > gpus:
        raise UnusableError(
            Fault(
                manifest.where("resources"),
                f"{actors} actors and {encoders} encoders need {needed:g} CPUs and {actors * actor_gpus:g} GPUs, "
                f"the cluster has {cpus:g} and {gpus:g}",
                "ask for fewer actors or encoders, or leave them out",
            )
        )
    return Pools(actors, actor_cpus, actor_gpus, encoders, n_threads)


def unused_gpus(manifest: Manifest) -> int:
    """GPUs of the cluster that the manifest leaves alone, worth a hint; 0 when it uses GPUs."""
    import ray

    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return 0 if manifest.resources.gpus_per_actor else int(cluster.get("GPU", 0))
