"""Runs windows through an encoder, packed, and hands each batch's hidden states to a head that makes them small.

One `Runner` lives in one actor. It computes equal windows once, prepares the next batches on a thread, brings the
results of a batch back while the next one runs, halves the token budget when the device runs out of memory, and narrows
a batch that fails down to the window that is to blame.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rembert_ray.engine.budget import HasConfig, choose_batch_tokens
from rembert_ray.engine.device_batch import DeviceBatch, Reads, Uploader, download
from rembert_ray.engine.packing import Long, PackedBatch, WindowTable, build_batch, find_equal, pack
from rembert_ray.models.layout import Layout
from rembert_ray.models.narrowed_layout import NarrowedLayout
from rembert_ray.ragged import ragged_arange
from rembert_ray.watchdog import beat

N_BATCHES_AHEAD = 2


class Encoder(HasConfig, Protocol):
    """What the runner asks of a model: see `models.encoder.Encoder.encode`."""

    def encode(
        self, input_ids: Tensor, token_type_ids: Tensor, layout: Layout, *, narrowed: NarrowedLayout | None
    ) -> Tensor:
        """Ids in any layout to hidden states."""
        ...


class Head(Protocol):
    """What a task does with hidden states on the device; only what it returns leaves the device."""

    @property
    def token_values(self) -> Container[str]:
        """Names of the results that are per kept token; the others are per window."""
        ...

    @property
    def reads(self) -> Reads:
        """Of which tokens `reduce` takes hidden states."""
        ...

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`[tokens that it reads, hidden]` to named tensors whose first axis is kept tokens or windows."""
        ...


@dataclass
class RunFacts:
    """Counts and seconds of one `Runner.run`, for the receipt."""

    n_windows: int = 0
    n_tokens: int = 0
    n_windows_computed: int = 0
    n_tokens_computed: int = 0
    n_batches: int = 0
    batch_tokens: int = 0
    forward_s: float = 0.0
    wait_s: float = 0.0


@dataclass
class RunResult:
    """Results in the order of the windows.

    values: for each name an array whose first axis is kept tokens (see `WindowTable.kept_splits`) or windows.
    failures: window index -> why it has no result; its values are zeros.
    """

    values: dict[str, NDArray[np.generic]]
    failures: dict[int, str]
    facts: RunFacts


class Engine(Protocol):
    """What an infer actor asks of whatever runs windows: a `Runner`, or a loop that generates text."""

    @property
    def token_values(self) -> Container[str]:
        """See `Head.token_values`."""
        ...

    def run(self, table: WindowTable) -> RunResult:
        """Every window once, equal ones together."""
        ...


# A batch, and what hands it over on the device; a batch that is being computed, and what waits for its results.
Prepared = tuple[PackedBatch, Callable[[], DeviceBatch]]
Running = tuple[PackedBatch, Callable[[], dict[str, NDArray[np.generic]]]]


@dataclass
class _Work:
    """The state of one run."""

    table: WindowTable
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    facts: RunFacts = field(default_factory=RunFacts)
    running: Running | None = None


class Runner:
    """One encoder and one head on one device.

    Args:
        encoder: in evaluation mode, on `device`.
        head: reduces hidden states.
        device: where both are.
        batch_tokens: token budget of one forward pass; None: see `choose_batch_tokens`.
    """

    def __init__(self, encoder: Encoder, head: Head, device: torch.device, batch_tokens: int | None = None) -> None:
        self.encoder = encoder
        self.head = head
        self.token_values = head.token_values
        self.device = device
        self.uploader = Uploader(device)
        self.batch_tokens = batch_tokens or choose_batch_tokens(encoder, device)

    def run(self, table: WindowTable) -> RunResult:
        """Every window once, equal ones together.

        A window whose forward pass raises is reported in `failures`; an error that breaks the device
        (`torch.AcceleratorError`) is raised, because only a new process can help.
        """
        kinds, inverse = find_equal(table)
        work = _Work(table.take(kinds))
        work.facts.n_windows, work.facts.n_tokens = len(table), len(table.ids)
        work.facts.n_windows_computed = len(kinds)
        todo = np.arange(len(kinds), dtype=np.int64)
        with torch.inference_mode(), ThreadPoolExecutor(1, thread_name_prefix="pack") as thread:
            while len(todo):
                todo = self._run_within_budget(work, todo, thread)
        work.facts.batch_tokens = self.batch_tokens
        return _spread(work, inverse, self.head.token_values)

    def _run_within_budget(self, work: _Work, todo: Long, thread: ThreadPoolExecutor) -> Long:
        """Run batches at the present budget; on out of memory halve it and return what is left to do."""
        done = np.zeros(len(work.table), dtype=bool)
        batches = [todo[windows] for windows in pack(work.table.lengths[todo], self.batch_tokens)]
        for batch, receive in self._prefetch(work, batches, thread):
            try:
                self._run_or_narrow(work, batch, receive)
            except torch.OutOfMemoryError:
                largest = int(batch.lengths.max())
                if batch.n_tokens <= largest:
                    raise
                self.batch_tokens = max(batch.n_tokens // 2, largest)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self._store_running(work)
                return todo[~done[todo]]
            done[batch.windows] = True
        self._store_running(work)
        return todo[:0]

    def _run_or_narrow(self, work: _Work, batch: PackedBatch, receive: Callable[[], DeviceBatch]) -> None:
        """Run a batch; if it fails, run its halves, down to the window that is to blame."""
        try:
            self._run_batch(work, batch, receive())
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            if len(batch.windows) == 1:
                work.failures[int(batch.windows[0])] = f"{type(error).__name__}: {error}".splitlines()[0]
                return
            middle = len(batch.windows) // 2
            for part in (batch.windows[:middle], batch.windows[middle:]):
                self._run_or_narrow(work, *self._prepare(work.table, part))

    def _run_batch(self, work: _Work, batch: PackedBatch, on_device: DeviceBatch) -> None:
        beat()
        started = time.perf_counter()
        layout, narrowed = on_device.layout, on_device.narrowed
        hidden = self.encoder.encode(on_device.ids, on_device.token_type_ids, layout, narrowed=narrowed)
        results = download(self.head.reduce(hidden, on_device))
        self._store_running(work)
        work.running = (batch, results)
        work.facts.forward_s += time.perf_counter() - started
        work.facts.n_batches += 1
        work.facts.n_tokens_computed += batch.n_tokens

    def _store_running(self, work: _Work) -> None:
        """Wait for the results of the batch before, while the device goes on with the present one."""
        if work.running is None:
            return
        (batch, results), work.running = work.running, None
        _store(work, batch, results(), self.head.token_values)

    def _prepare(self, table: WindowTable, windows: Long) -> Prepared:
        batch = build_batch(table, windows)
        return batch, self.uploader.upload(batch, self.head.reads)

    def _prefetch(self, work: _Work, batches: list[Long], thread: ThreadPoolExecutor) -> Iterator[Prepared]:
        """The next batches are built and uploaded on a thread while the present one runs."""
        queue: deque[Future[Prepared]] = deque()
        for windows in batches:
            queue.append(thread.submit(self._prepare, work.table, windows))
            if len(queue) > N_BATCHES_AHEAD:
                yield _wait_for(queue.popleft(), work.facts)
        while queue:
            yield _wait_for(queue.popleft(), work.facts)


def _wait_for(future: Future[Prepared], facts: RunFacts) -> Prepared:
    started = time.perf_counter()
    prepared = future.result()
    facts.wait_s += time.perf_counter() - started
    return prepared


def _store(
    work: _Work, batch: PackedBatch, reduced: Mapping[str, NDArray[np.generic]], token_values: Container[str]
) -> None:
    table = work.table
    tokens = ragged_arange(table.kept_splits[:-1][batch.windows], batch.kept_lengths)
    for name, value in reduced.items():
        is_token = name in token_values
        places, n_places = (tokens, int(table.kept_splits[-1])) if is_token else (batch.windows, len(table))
        if len(value) != len(places):
            raise TypeError(f"head returned {len(value)} rows of {name!r} for {len(places)} places")
        if name not in work.values:
            work.values[name] = np.zeros((n_places, *value.shape[1:]), dtype=value.dtype)
        work.values[name][places] = value


def _spread(work: _Work, inverse: Long, token_values: Container[str]) -> RunResult:
    """From distinct windows back to all windows."""
    starts = work.table.kept_splits
    tokens = ragged_arange(starts[:-1][inverse], np.diff(starts)[inverse])
    values = {name: value[tokens if name in token_values else inverse] for name, value in work.values.items()}
    failures = {window: work.failures[int(kind)] for window, kind in enumerate(inverse) if int(kind) in work.failures}
    return RunResult(values, failures, work.facts)
