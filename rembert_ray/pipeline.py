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
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError, RayTaskError

from rembert_ray.cluster import ENCODE_CPUS, WRITE_CPUS, Pools
from rembert_ray.errors import RembertRayError
from rembert_ray.plan import Shard
from rembert_ray.stages.envelope import Envelope, run_stage, seal, unseal
from rembert_ray.stages.probation import Probation, Stage
from rembert_ray.stages.spec import JobSpec
from rembert_ray.stages.write import Write

# Two shards per actor: one runs while the next one lies ready.
SHARDS_IN_FLIGHT_PER_ACTOR = 2


class WorkersLostError(RembertRayError):
    """Ray gave up on a worker after its retries. What is committed stays; the same command resumes."""

    exit_code = 75


def build(shards: Sequence[Shard], spec: JobSpec, pools: Pools, attempts: int) -> Dataset:
    """The graph: read and encode, infer, decode and write."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    # A shard is one row and must arrive whole, however large it grows.
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    context.execution_no_progress_timeout_s = -1  # the driver watches for stalls itself, by the manifest's limit
    # Ray retries a call whose process died for ever by default.
    lives: dict[str, Any] = {"max_restarts": -1, "max_task_retries": attempts - 1}
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")  # named parameters for lives come with Ray 2.64
    stage: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}

    def pool(size: int) -> ActorPoolStrategy:
        return ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=SHARDS_IN_FLIGHT_PER_ACTOR)

    blocks = [seal([Envelope(shard)]) for shard in shards]
    encoded = ray.data.from_arrow(blocks).map_batches(
        EncodeWorker, fn_constructor_args=(spec,), compute=pool(pools.encoders), num_cpus=ENCODE_CPUS, **stage, **lives
    )
    inferred = encoded.map_batches(
        InferWorker,
        fn_constructor_args=(spec,),
        compute=pool(pools.actors),
        num_cpus=pools.actor_cpus,
        num_gpus=pools.actor_gpus,
        **stage,
        **lives,
    )
    return inferred.map_batches(
        WriteWorker, fn_constructor_args=(spec,), compute=pool(pools.encoders), num_cpus=WRITE_CPUS, **stage, **lives
    )


class Worker:
    """A stage in an actor. After the death of its process, the first shards of the new one are on probation."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.stage = self.load_stage()
        context = ray.get_runtime_context()
        self.on_probation = 2 * SHARDS_IN_FLIGHT_PER_ACTOR if context.was_current_actor_reconstructed else 0
        # On probation the model is loaded by children: twice might not fit.
        self.loaded = None if self.on_probation else self.stage(spec)

    def load_stage(self) -> type[Stage]:
        """The stage's class, imported in the worker that needs it: torch costs seconds and hundreds of megabytes."""
        raise TypeError(f"{type(self).__name__} has no stage")

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        if self.on_probation:
            self.on_probation -= 1
            return run_stage(sealed, Probation(self.stage, self.spec).run)
        self.loaded = self.loaded or self.stage(self.spec)
        return self.loaded(sealed)


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


class WriteWorker:
    """`Write` in an actor. As a task, a shard costs more than a CPU second beside its work: most likely Ray ends idle
    processes of tasks where actors hold the CPUs, and a new one imports everything again."""

    def __init__(self, spec: JobSpec) -> None:
        self.write = Write(spec)

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        return self.write(sealed)


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
        return WorkersLostError(f"a worker died more often than limits.attempts allows: {error}")
    return error
