"""Who competes in `benchmarks.engine` on a sample: ours, transformers, what runs its export, and the roof over them.

Each contender's run takes the whole sample. It must not time anything but the search for the peers' best batch sizes.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.checkpoints import save_random
from benchmarks.padded import Forward, Vectors, count_tokens, pad_batches, run_batches
from benchmarks.peers import exported_forwards, load_transformers, transformers_forward
from benchmarks.roof import ROOFS, linears_alone
from benchmarks.turns import Contender
from rembert_ray.engine.flops import count_flops
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.runner import Runner
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.models.weight_map import BASE
from rembert_ray.tasks.embed import EmbedHead

# Batches of more tokens are not tried, nor batch sizes after one that is this much slower than the best.
LARGEST_BATCH_TOKENS = 8192
SLOWER = 1.1
OURS = "ours, packed"


@dataclass
class Forwarder(Contender):
    """A contender and what its run computes.

    tokens: real ones; tokens_computed: with padding. flops: useful ones; padding does not count.
    """

    tokens: int = 0
    tokens_computed: int = 0
    flops: float = 0.0

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s of the best round."""
        return self.flops / min(self.seconds) / 1e9


@dataclass(frozen=True)
class Models:
    """The same weights: ours, plain and prepacked; those of transformers; its export, by the program that runs it."""

    plain: RemBertModel
    prepacked: RemBertModel
    transformers: Forward
    exported: dict[str, Forward]


def load_models(n_layers: int) -> Models:
    """A random checkpoint, in every program."""
    with tempfile.TemporaryDirectory(prefix="rembert-ray-engine-") as name:
        folder = save_random(name, BASE, n_layers)
        plain = RemBertModel.from_pretrained(folder, add_pooling_layer=False)
        peer = load_transformers(folder)
    plain.eval()
    prepacked = copy.deepcopy(plain)
    if not prepack_linears(prepacked):
        print("this torch has no oneDNN: nothing is prepacked")
    return Models(plain, prepacked, transformers_forward(peer), exported_forwards(peer))


def ours(name: str, model: RemBertModel, table: WindowTable, batch_tokens: int | None = None) -> Forwarder:
    """What an actor of a job runs: equal windows, packing, the forward, the head, the order of the windows."""
    runner = Runner(model.encoder, EmbedHead("mean", None), torch.device("cpu"), batch_tokens)

    def run() -> Vectors:
        result = runner.run(table)
        if result.failures or result.facts.n_tokens_computed != len(table.ids):
            raise SystemExit(f"not every window was computed: {result.failures or 'some are equal'}")
        return result.values["vector"].astype(np.float32, copy=False)

    n_tokens = len(table.ids)
    return Forwarder(name, run, [], None, n_tokens, n_tokens, count_flops(table.lengths, model.config))


def padded(name: str, forward: Forward, table: WindowTable, batch_size: int, flops: float, order: str) -> Forwarder:
    """A peer with one batch size; `order` is "sorted" or "arrival order"."""
    batches = pad_batches(table, batch_size, is_sorted=order == "sorted")
    name = f"{name}, batch {batch_size}" + (f", {order}" if batch_size > 1 else "")
    computed = count_tokens(batches)
    return Forwarder(name, lambda: run_batches(forward, batches), [], None, len(table.ids), computed, flops)


def find_best(build: Callable[[int], Forwarder], sizes: Iterable[int]) -> Forwarder:
    """The fastest of growing batch sizes, each run once; ends where they have become slower."""
    best, least = None, float("inf")
    for size in sizes:
        contender = build(size)
        started = time.perf_counter()
        contender.run()
        seconds = time.perf_counter() - started
        print(f"search: {contender.name}: {contender.tokens / seconds:,.0f} tokens/s", file=sys.stderr, flush=True)
        if seconds > SLOWER * least:
            break
        if seconds < least:
            best, least = contender, seconds
    assert best is not None
    return best


def choose_contenders(models: Models, table: WindowTable) -> list[Forwarder]:
    """Ours first, then the peers; fixed batch sizes where there are as many windows, and the best ones, sorted."""
    flops = count_flops(table.lengths, models.plain.config)
    limit = min(LARGEST_BATCH_TOKENS * len(table) // len(table.ids), len(table))
    sizes = [2**n for n in range(limit.bit_length())]

    def peer(name: str, forward: Forward, order: str = "sorted") -> Callable[[int], Forwarder]:
        return lambda size: padded(name, forward, table, size, flops, order)

    transformers = peer("transformers", models.transformers)
    contenders = [ours(OURS, models.prepacked, table), transformers(1)]
    if len(table) >= 32:
        contenders += [peer("transformers", models.transformers, "arrival order")(32), transformers(32)]
    best = find_best(transformers, sizes[2:] or sizes)
    if best.name not in {contender.name for contender in contenders}:
        contenders.append(best)
    return contenders + [find_best(peer(name, forward), sizes) for name, forward in models.exported.items()]


def choose_roofs(model: RemBertModel, n_tokens: int) -> list[Forwarder]:
    """The linear layers alone, on about as many rows as there are tokens."""
    found = []
    for library, n_rows in ROOFS:
        n_passes = max(1, round(n_tokens / n_rows))
        run, flops = linears_alone(model.encoder.layers, library, n_rows, n_passes)
        name = f"roof: linear layers alone, {library}, {n_rows:,} rows"
        found.append(Forwarder(name, run, [], None, n_passes * n_rows, n_passes * n_rows, flops))
    return found
