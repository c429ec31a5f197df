"""What more cores, more nodes and more text do to the speed and the memory of a job.

    python -m benchmarks.scaling                    # all parts
    python -m benchmarks.scaling --part cores       # the forward on 1 and 2 threads; jobs with 1 and 2 actors
    python -m benchmarks.scaling --part nodes       # jobs on 1, 2, 4 and 8 simulated nodes
    python -m benchmarks.scaling --part tokens      # stages in one process and jobs, on 1e5 to 1e7 tokens

Jobs are the product's own, on a Ray of their own, over texts of real lengths (corpus L). Their rate is that of the time
in which all actors work, as the commits tell; the start of Ray and of the workers is not in it, but is shown.

A simulated node is a Ray node on this machine, of two logical CPUs, with an infer actor and an encoder. Its forward is
a pause as long as 4 full-width layers take on one core; the rest is done for real, by the cores of this machine.
For tokens the model is tiny, which is the harder test: what is not linear is in everything but the forward.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.checkpoints import save_random
from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import real_lengths, windows_of
from benchmarks.turns import Contender, by_round, ratio, take_turns
from benchmarks.watched_job import DRIVER, WORKERS, JobRun, ray_nodes, run_job, write_job
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.runner import Engine
from rembert_ray.models.config import AutoConfig
from rembert_ray.models.weight_map import TOKEN_CLASSIFICATION
from rembert_ray.storage.location import locate
from rembert_ray.tasks.tag import Tag, TagParameters

JOB, STAGES, SLEEP = ("rembert_ray", "run"), ("benchmarks.direct_job", "stages"), ("benchmarks.direct_job", "sleep")
WAYS = {"all stages in one process": STAGES, "whole jobs, 1 actor and 1 encoder": JOB}
SAMPLE_TEXTS = 2000
NODE_CPUS = 2
TINY = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "input_embedding_size": 32}
# Float32 sums in another order.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    shape: of the model of cores and nodes, where it is not full width; engine_texts: of the forward alone.
    seconds: of a job, roughly. forward_rows, tiny_rows: of a shard; few, so that a short job has many shards.
    """

    n_layers: int = 4
    shape: dict[str, int] | None = None
    engine_texts: int = 250
    rounds: int = 3
    seconds: float = 40.0
    actors: tuple[int, ...] = (1, 2)
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    tokens: tuple[int, ...] = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    forward_rows: int = 100
    tiny_rows: int = 300


SMOKE = Sizes(1, TINY, 20, 1, 0.02, (1,), (1,), (4000,), 20, 20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this (all)")
    parser.add_argument("--rounds", type=int, help="of each contender, and of each job of cores and tokens (3)")
    parser.add_argument("--seconds", type=float, help="of each job of cores and nodes, roughly (40)")
    parser.add_argument("--nodes", type=int, nargs="+", help="simulated nodes (1 2 4 8)")
    parser.add_argument("--tokens", type=float, nargs="+", help="sizes (1e5 3e5 1e6 3e6 1e7)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    arguments = parser.parse_args()
    given = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    given |= {"nodes": tuple(arguments.nodes or ()), "tokens": tuple(map(int, arguments.tokens or ()))}
    sizes = replace(SMOKE if arguments.smoke else Sizes(), **{name: value for name, value in given.items() if value})
    print(describe_machine())
    print("Texts of real lengths (corpus L), RemBERT's vocabulary size, float32.")
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        for name in arguments.part or PARTS:
            (own := Path(folder) / name).mkdir()
            PARTS[name](sizes, own)


def measure_cores(sizes: Sizes, folder: Path) -> None:
    """The forward by threads and by processes, then whole jobs by actors."""
    model = str(save_random(folder / "model", TOKEN_CLASSIFICATION, sizes.n_layers, **(sizes.shape or {})))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:

        def run_in_two_processes() -> NDArray[np.float32]:
            first, second = (pool.submit(run_forward, model, sizes.engine_texts, 1) for _ in range(2))
            second.result()
            return first.result()

        contenders = [
            Contender("1 thread", lambda: run_forward(model, sizes.engine_texts, 1)),
            Contender("2 threads", lambda: run_forward(model, sizes.engine_texts, 2)),
            Contender("2 processes of 1 thread, all of the work each", run_in_two_processes),
        ]
        take_turns(contenders, sizes.rounds)
    one = contenders[0]
    n_tokens, rows = len(load_windows(sizes.engine_texts).ids), []
    for contender, n_times, n_cores in zip(contenders, (1, 1, 2), (1, 2, 2), strict=True):
        worst = float(np.abs(contender.result - one.result).max())
        if not worst <= TOLERANCE:
            raise SystemExit(f"{contender.name}: scores differ by {worst:.1e}, more than {TOLERANCE:.0e}")
        rates = [n_times * n_tokens / seconds for seconds in contender.seconds]
        gains = [n_times * gain for gain in by_round(one, contender)]
        rows.append(describe_gain(contender.name, rates, n_times * ratio(one, contender), gains, n_cores))
    print(f"\n## Cores: the forward, {sizes.n_layers} layers, {n_tokens:,} tokens\n")
    print_table(["forward", *GAIN_COLUMNS], rows)
    measure_actors(sizes, folder, model, n_tokens / min(one.seconds))


def measure_actors(sizes: Sizes, folder: Path, model: str, tokens_per_s: float) -> None:
    """Jobs with actors of one thread each, as many texts an actor; one encoder."""
    found: dict[int, list[JobRun]] = {n_actors: [] for n_actors in sizes.actors}
    with ray_nodes((), 2 + max(sizes.actors)) as environment:
        for turn in range(sizes.rounds):
            for n_actors, runs in found.items():
                texts = texts_of(n_actors * sizes.seconds * tokens_per_s)
                resources = f"{{actors: {n_actors}, cpus_per_actor: 1, encoders: 1}}"
                manifest = write_job(folder / f"{turn}-{n_actors}", model, texts, sizes.forward_rows, resources)
                runs.append(run_job(JOB, manifest, environment))
    ones, rows = [run.commits.tokens_per_s for run in found[sizes.actors[0]]], []
    for n_actors, runs in found.items():
        rates = [run.commits.tokens_per_s for run in runs]
        gains = [rate / one for rate, one in zip(rates, ones, strict=True)]
        row = describe_gain(f"{n_actors} actor(s)", rates, max(rates) / max(ones), gains, n_actors)
        rows.append([*row, f"{statistics.median(run.busy_cores for run in runs):.2f}"])
    print("\n## Cores: whole jobs, actors of 1 thread, 1 encoder\n")
    print_table(["job", *GAIN_COLUMNS, "cores busy"], rows)


GAIN_COLUMNS = ("tokens/s: min / median / max", "faster by", "round by round: min / median / max", "efficiency")


def describe_gain(name: str, rates: list[float], best: float, gains: list[float], n_cores: int) -> list[str]:
    """A row of `GAIN_COLUMNS`."""
    return [name, three(rates, ",.0f"), f"{best:.2f} x", three(gains, ".2f"), f"{best / n_cores:.0%}"]


def measure_nodes(sizes: Sizes, folder: Path) -> None:
    """Jobs on simulated nodes, as many texts a node."""
    model = str(save_random(folder / "model", TOKEN_CLASSIFICATION, sizes.n_layers, **(sizes.shape or {})))
    forward = Contender("1 thread", lambda: run_forward(model, sizes.engine_texts, 1))
    take_turns([forward], sizes.rounds)
    pause_s = min(forward.seconds) / len(load_windows(sizes.engine_texts).ids)
    rows: list[list[str]] = []
    of_a_node: list[float] = []
    for n_nodes in sizes.nodes:
        texts = texts_of(n_nodes * sizes.seconds / pause_s)
        resources = f"{{actors: {n_nodes}, encoders: {n_nodes}}}"
        manifest = write_job(folder / str(n_nodes), model, texts, sizes.forward_rows, resources)
        with ray_nodes((NODE_CPUS,) * n_nodes, 0) as environment:
            run = run_job(SLEEP, manifest, environment, str(pause_s))
        if run.commits.n_actors != n_nodes:
            raise SystemExit(f"{run.commits.n_actors} actors worked on {n_nodes} nodes: take more seconds")
        of_a_node.append(run.commits.tokens_per_s / n_nodes)
        last = of_a_node[max(len(of_a_node) - 2, 0)]
        row = [f"{n_nodes}", f"{sum(run.commits.n_tokens):,}", f"{len(run.commits.at):,}"]
        row += [f"{run.commits.tokens_per_s:,.0f}", f"{of_a_node[-1] * pause_s:.1%}", f"{of_a_node[-1] / last:.1%}"]
        rows.append([*row, f"{of_a_node[-1] / of_a_node[0]:.1%}", f"{run.busy_cores:.2f}", f"{run.first_commit_s:.0f}"])
    print(f"\n## Simulated nodes: 1 actor and 1 encoder a node, a pause of {1e6 * pause_s:.0f} us a token\n")
    efficiency = ("efficiency: of the pauses alone", "of the row above", "of the first row")
    print_table(["nodes", "tokens", "shards", "tokens/s", *efficiency, "cores busy", "first commit after, s"], rows)


def measure_tokens(sizes: Sizes, folder: Path) -> None:
    """Time and memory by the size of the corpus: all stages in one process, and jobs."""
    model = str(save_random(folder / "model", TOKEN_CLASSIFICATION, 1, num_labels=17, **TINY))
    found: dict[tuple[str, int], list[JobRun]] = {}
    with ray_nodes((), 4) as environment:
        for turn in range(sizes.rounds):
            for n_tokens in sizes.tokens:
                texts = texts_of(n_tokens)
                for number, (way, command) in enumerate(WAYS.items()):
                    place = folder / f"{turn}-{n_tokens}-{number}"
                    resources = "{actors: 1, cpus_per_actor: 1, encoders: 1}"
                    manifest = write_job(place, model, texts, sizes.tiny_rows, resources)
                    found.setdefault((way, n_tokens), []).append(run_job(command, manifest, environment))
                    shutil.rmtree(place)
    for way in WAYS:
        print(f"\n## Tokens: {way}; 1 layer of width {TINY['hidden_size']}\n")
        print_table(*describe_tokens([found[way, n_tokens] for n_tokens in sizes.tokens]))


def describe_tokens(runs_of: Sequence[list[JobRun]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a row for each size; the best run of a size against the best of the largest."""
    largest = max(run.commits.tokens_per_s for run in runs_of[-1])
    kinds = [kind for kind in (DRIVER, *WORKERS.values()) if any(kind in run.peak_bytes for run in runs_of[-1])]
    rows = []
    for runs in runs_of:
        rates = [run.commits.tokens_per_s for run in runs]
        peaks = [f"{max(run.peak_bytes.get(kind, 0) for run in runs) / 2**20:,.0f}" for kind in kinds]
        seconds = statistics.median(run.seconds for run in runs)
        n_tokens = runs[0].commits.n_tokens
        row = [f"{sum(n_tokens):,}", f"{len(n_tokens):,}", f"{seconds:.1f}", three(rates, ",.0f")]
        rows.append([*row, f"{largest / max(rates) - 1:+.1%}", *peaks])
    columns = ["tokens", "shards", "s with the start", "tokens/s: min / median / max", "time off linear"]
    return [*columns, *(f"peak MiB: {kind}" for kind in kinds)], rows


@functools.cache
def load_windows(n_texts: int) -> WindowTable:
    """The windows of the first texts of corpus L."""
    return windows_of(real_lengths(n_texts))


@functools.cache
def load_engine(model: str) -> Engine:
    """What an actor of `task: tag` holds."""
    task, device = Tag(TagParameters()), torch.device("cpu")
    loaded = task.load_model(locate(model), AutoConfig.from_pretrained(model), torch.float32, device)
    prepack_linears(loaded)
    return task.engine(loaded, device, None)


def run_forward(model: str, n_texts: int, n_threads: int) -> NDArray[np.float32]:
    """Scores of the kept tokens; model and windows are loaded once a process."""
    torch.set_num_threads(n_threads)
    return load_engine(model).run(load_windows(n_texts)).values["score"].astype(np.float32)


@functools.cache
def tokens_a_text() -> float:
    """Tokens of a text of corpus L on average, special ones included."""
    return len(load_windows(SAMPLE_TEXTS).ids) / SAMPLE_TEXTS


def texts_of(n_tokens: float) -> list[str]:
    """As many texts of corpus L as have about so many tokens."""
    return real_lengths(max(1, round(n_tokens / tokens_a_text())))


PARTS = {"cores": measure_cores, "nodes": measure_nodes, "tokens": measure_tokens}

if __name__ == "__main__":
    main()
