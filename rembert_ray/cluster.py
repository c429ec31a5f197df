"""Joining or starting Ray, and how many workers of which size a job gets. Imports ray only when it is called."""

from __future__ import annotations

import faulthandler
import logging
import os
import tempfile
from dataclasses import dataclass
from typing import Any

from rembert_ray import stop_signals, watchdog
from rembert_ray.errors import Fault, StoppedError, UnusableError
from rembert_ray.manifest import Manifest

ENCODE_CPUS = 0.5
WRITE_CPUS = 0.25
CPUS_PER_CPU_ACTOR = 8
ANSWER_S = 60.0


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
        StoppedError: a signal came while Ray started.
    """
    # Else a thread of Ray Data that is still at work when a failed run ends starts Ray anew.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
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
    except SystemExit as error:
        # Ray's own answer to SIGTERM.
        raise StoppedError(stop_signals.MESSAGE.format(name="SIGTERM")) from error
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


def describe_workers(run_id: str) -> str:
    """What the driver and the workers of a run are doing, node by node: shards in hand, and the stacks of all threads.

    Nodes that have not answered after `ANSWER_S` are named as such.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    texts = [f"driver\n{_own_stacks()}"]
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    on_node = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    ask = ray.remote(num_cpus=0, max_retries=0)(watchdog.describe_workers)
    answers = [ask.options(scheduling_strategy=place).remote(run_id) for place in on_node]
    ray.wait(answers, num_returns=len(answers), timeout=ANSWER_S)
    for node, answer in zip(nodes, answers, strict=True):
        try:
            text = ray.get(answer, timeout=0.1)
        except ray.exceptions.RayError as error:
            text = f"does not answer: {type(error).__name__}"
        texts.append(f"node {node['NodeManagerHostname']}\n{text}")
    return "\n\n".join(texts)


def _own_stacks() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
