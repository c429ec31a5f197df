"""The Ray Data graph of a job; the only file that imports ray.data.

Shards go in, receipts come out in the order in which shards finish. A shard is one block of one row from end to end.
Whatever fails inside a stage for a reason that lies in the data comes back as a receipt; an exception here means that
processes or the cluster gave out.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError, RayTaskError

from rembert_ray.cluster import ENCODE_CPUS, WRITE_CPUS, Pools
from rembert_ray.errors import RembertRayError
from rembert_ray.plan import Shard
from rembert_ray.report.narration import log_events
from rembert_ray.stages.envelope import Envelope, run_stage, seal, unseal
from rembert_ray.stages.isolation import Stage
from rembert_ray.stages.probation import SEARCH, Probation
from rembert_ray.stages.spec import JobSpec
from rembert_ray.watchdog import Watchdog

# Two shards per actor: one runs while the next one lies ready.
SHARDS_IN_FLIGHT_PER_ACTOR = 2
RETRIES = 6


class WorkersLostError(RembertRayError):
    """Ray gave up on a worker after its retries. What is committed stays; the same command resumes."""

    exit_code = 75


def build(shards: Sequence[Shard], spec: JobSpec, pools: Pools, *, on_probation: bool = False) -> Dataset:
    """The graph: read and encode, infer, decode and write; each in child processes for shards that are suspects."""
    # What ends the graph is raised to the driver, which says it in its own words; Ray's are of blocks to be dropped.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    # A shard is one row and must arrive whole, however large it grows.
    context.target_max_block_size = None
    # Wrapped in an error of Ray's, ours would lose its class on the way: a chain of causes is not pickled.
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    context.execution_no_progress_timeout_s = -1  # the driver watches for stalls itself, by the manifest's limit
    # By default Ray retries a call whose process died for ever. A shard that was in hand when a worker died is given
    # back by the next one; these retries are for those that waited behind it, and for nodes that went away.
    lives: dict[str, Any] = {"max_restarts": -1, "max_task_retries": RETRIES}
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")  # named parameters for lives come with Ray 2.64
    stage: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    stage |= {"fn_constructor_args": (spec, on_probation)}

    def pool(size: int) -> ActorPoolStrategy:
        return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=SHARDS_IN_FLIGHT_PER_ACTOR)

    blocks = [seal([Envelope(shard)]) for shard in shards]
    encoded = ray.data.from_arrow(blocks).map_batches(
        EncodeWorker, compute=pool(pools.encoders), num_cpus=ENCODE_CPUS, **stage, **lives
    )
    inferred = encoded.map_batches(
        InferWorker,
        compute=pool(pools.actors),
        num_cpus=pools.actor_cpus,
        num_gpus=pools.actor_gpus,
        **stage,
        **lives,
    )
    return inferred.map_batches(WriteWorker, compute=pool(pools.encoders), num_cpus=WRITE_CPUS, **stage, **lives)


class Worker:
    """A stage in an actor, under a watchdog.

    If its process dies, the one that Ray starts in its place does not try the shard in hand again: it gives it back as
    a suspect, so that the others need not wait until it has been looked at.
    """

    can_set_aside = True

    def __init__(self, spec: JobSpec, on_probation: bool) -> None:
        log_events(spec.log, run=spec.run_id)
        stage = self.load_stage()
        self.name = stage.__name__.lower()
        silence_s = (SEARCH + 1) * spec.silence_s if on_probation else spec.silence_s
        self.watchdog = Watchdog(spec.run_id, str(ray.get_runtime_context().get_actor_id()), silence_s)
        self.last_words = self.watchdog.last_words
        self.work: Callable[[pa.Table], pa.Table]
        if on_probation:
            # The model is loaded by children only: twice might not fit.
            probation = Probation(stage, spec, spec.silence_s, self.can_set_aside)
            self.work = lambda sealed: run_stage(sealed, probation.run)
        else:
            self.work = stage(spec)

    def load_stage(self) -> type[Stage]:
        """The stage's class, imported in the worker that needs it: torch costs seconds and hundreds of megabytes."""
        raise TypeError(f"{type(self).__name__} has no stage")

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        (envelope,) = unseal(sealed)
        shard = envelope.shard.index
        if self.last_words is not None and self.last_words.shard == shard:
            envelope.fail(str(self.last_words), is_suspect=True)
            envelope.facts["stacks"] = self.last_words.stacks
            self.last_words = None
            return seal([envelope])
        with self.watchdog.at_work(self.name, shard):
            return self.work(sealed)


class EncodeWorker(Worker):
    """`Encode` in an actor."""

    def load_stage(self) -> type[Stage]:
        """See `Worker.load_stage`."""
        from rembert_ray.stages.encode import Encode

        return Encode


class InferWorker(Worker):
    """`Infer` in an actor."""

    def load_stage(self) -> type[Stage]:
        """See `Worker.load_stage`."""
        from rembert_ray.stages.infer import Infer

        return Infer


class WriteWorker(Worker):
    """`Write` in an actor. As a task, a shard costs more than a CPU second beside its work: most likely Ray ends idle
    processes of tasks where actors hold the CPUs, and a new one imports everything again."""

    can_set_aside = False

    def load_stage(self) -> type[Stage]:
        """See `Worker.load_stage`."""
        from rembert_ray.stages.write import Write

        return Write


class Receipts:
    """Receipts of a run of the graph, pulled by a thread so that the caller can look at the clock between them."""

    def __init__(self, dataset: Dataset) -> None:
        self._queue: queue.Queue[Envelope | BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._pull, args=(dataset,), name="receipts", daemon=True)
        self._thread.start()

    def _pull(self, dataset: Dataset) -> None:
        try:
            for sealed in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for envelope in unseal(sealed):
                    self._queue.put(envelope)
            self._queue.put(None)
        # The thread has no caller: whatever ends it is raised where receipts are taken.
        except BaseException as error:  # noqa: BLE001
            self._queue.put(error)

    def __iter__(self) -> Iterator[Envelope | None]:
        """Receipts as they come; None about every second without one.

        Raises:
            RembertRayError: what a stage raised for the whole job (`StorageError`).
            WorkersLostError: Ray gave up on a worker.
        """
        while True:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise _explain(item) from item
            yield item


def _explain(error: BaseException) -> BaseException:
    """The error that the operator should see for what came out of Ray."""
    cause: BaseException | None = error
    while cause is not None:
        # Ray's own error may be of the type of what it wraps, with a traceback as its text.
        inner = getattr(cause, "cause", None) if isinstance(cause, RayTaskError) else None
        if inner is None and isinstance(cause, RembertRayError):
            return cause
        cause = inner or cause.__cause__
    if isinstance(error, RayError) and not isinstance(error, RayTaskError):
        return WorkersLostError(f"workers were lost again and again: {error}")
    return error
