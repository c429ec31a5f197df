"""The packed forward against every program that runs these weights: transformers, ONNX Runtime, OpenVINO, the machine.

    pip install -e ".[bench]"
    python -m benchmarks.engine
    python -m benchmarks.engine --corpus L --budgets 768,1024,1536,2048

RemBERT's width with fewer layers, random weights, float32; texts of three kinds: L, real lengths; U, windows of 512
tokens; S, titles. Every contender pools by summing the hidden states of each window, and the sums are compared. Ours is
`Runner.run`, all of it; the peers' batches are padded, and sorted if they are, before the clock starts, which favours
them. Their best batch sizes are searched for first. The speed of a shared machine drifts, so contenders take turns,
and best is compared with best.
It must not read anything from outside of this repository, nor the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.checkpoints import LAYERS
from benchmarks.contenders import (
    OURS,
    Forwarder,
    Models,
    choose_contenders,
    choose_roofs,
    load_models,
    ours,
)
from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import CORPORA, SEED, windows_of
from benchmarks.turns import by_round, ratio, take_turns
from rembert_ray.engine.flops import count_flops
from rembert_ray.engine.packing import Long, WindowTable, find_equal

SHARD_TEXTS = 2000
RUN_WINDOWS = 32
# L takes most of the time: the goals are on real lengths.
N_TEXTS = {"L": 128, "U": 8, "S": 256}
N_SMOKE_TEXTS = 2
COLUMNS = (
    "contender",
    "tokens computed / real",
    "useful tokens/s: min / median / max",
    "useful GFLOP/s",
    "ours is faster by",
    "round by round: min / median / max",
    "of the roof",
)
# Float32 sums in another order; larger differences mean that somebody computes something else.
TOLERANCE = 1e-4


def take_sample(corpus: str, n_texts: int) -> WindowTable:
    """Distinct windows of a corpus, in order of arrival.

    Of L, every so many-th run of `RUN_WINDOWS` neighbours in length among `SHARD_TEXTS` texts, shuffled again. Texts
    drawn one by one would lie far apart in length, and sorted batches of them would be padded as no sorted shard is.
    Runs begin a quarter into their part of the shard: then a token stands in as long a window as in the shard (117
    tokens on average, 114 there). Batches of 32 in order of arrival are padded less (2.8 times, 5.4 there), because the
    longest windows are left out; this favours whoever pads.
    """
    if corpus != "L":
        return _distinct(windows_of(CORPORA[corpus](n_texts)))
    shard = _distinct(windows_of(CORPORA[corpus](SHARD_TEXTS)))
    n_runs = len(shard) // RUN_WINDOWS
    n_wanted = max(1, n_texts // RUN_WINDOWS)
    first = ((np.arange(n_wanted) + 0.25) * n_runs / n_wanted).astype(np.int64) * RUN_WINDOWS
    by_length = np.argsort(-shard.lengths, kind="stable")
    chosen = by_length[(first[:, None] + np.arange(RUN_WINDOWS)).ravel()]
    return shard.take(np.random.default_rng(SEED).permutation(chosen)[:n_texts])


def _distinct(table: WindowTable) -> WindowTable:
    # The runner computes equal windows once, which is not what is compared here.
    return table.take(np.sort(find_equal(table)[0]))


def largest_difference(contenders: list[Forwarder], table: WindowTable) -> float:
    """Between the mean vectors of the first contender and of everybody else.

    Raises:
        SystemExit: it is more than `TOLERANCE`.
    """
    means = [contender.result / table.lengths[:, None] for contender in contenders]
    worst = max(float(np.abs(mean - means[0]).max()) for mean in means)
    if not worst <= TOLERANCE:
        raise SystemExit(f"mean vectors differ by {worst:.1e}, more than {TOLERANCE:.0e}: not the same computation")
    return worst


def rows_of(contenders: list[Forwarder], roofs: list[Forwarder]) -> Iterable[list[str]]:
    """Rates are of real tokens, slowest / median / fastest round; ratios compare the fastest rounds."""
    first, roof = contenders[0], max(roof.gflops for roof in roofs)
    for contender in contenders:
        yield [
            contender.name,
            f"{contender.tokens_computed / contender.tokens:.2f}",
            three([contender.tokens / seconds for seconds in contender.seconds], ",.0f"),
            f"{contender.gflops:.0f}",
            f"{ratio(contender, first):.2f} x",
            three(by_round(contender, first), ".2f"),
            f"{contender.gflops / roof:.0%}",
        ]
    for contender in roofs:
        yield [contender.name, "", "", f"{contender.gflops:.0f}", "", "", f"{contender.gflops / roof:.0%}"]


def describe(corpus: str, lengths: Long, flops: float) -> str:
    """One line on the sample."""
    p50, p90 = np.percentile(lengths, [50, 90])
    return (
        f"Corpus {corpus}: {len(lengths):,} windows, {lengths.sum():,} tokens, mean {lengths.mean():.0f}, p50 {p50:.0f}"
        f", p90 {p90:.0f}, max {lengths.max()}; {flops / 1e9:,.0f} useful GFLOP a run"
    )


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, nargs="+", default=list(CORPORA), help="L U S (all)")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"encoder layers ({LAYERS})")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--texts", type=int, help=f"texts of a sample {N_TEXTS}")
    parser.add_argument("--budgets", default="", help="compare only ours, with these tokens a batch: 768,1024")
    parser.add_argument("--json", type=Path, help="also write seconds and counts to this file")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that touches everything")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.rounds, arguments.texts = 1, 1, N_SMOKE_TEXTS
    return arguments


def measure(corpus: str, models: Models, arguments: argparse.Namespace) -> list[Forwarder]:
    """Run all contenders on a corpus and print their table."""
    table = take_sample(corpus, arguments.texts or N_TEXTS[corpus])
    print("\n" + describe(corpus, table.lengths, count_flops(table.lengths, models.plain.config)) + "\n", flush=True)
    if arguments.budgets:
        budgets = [int(budget) for budget in arguments.budgets.split(",")]
        contenders = [ours(f"{OURS}, {budget:,} tokens", models.prepacked, table, budget) for budget in budgets]
    else:
        contenders = choose_contenders(models, table)
    roofs = choose_roofs(models.plain, len(table.ids))
    take_turns([*contenders, *roofs], arguments.rounds)
    worst = largest_difference(contenders, table)
    print_table(COLUMNS, rows_of(contenders, roofs))
    print(f"\nMean vectors differ from those of the first row by at most {worst:.1e}.")
    return [*contenders, *roofs]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    machine = describe_machine()
    print(f"{machine}; layers: {arguments.layers}, rounds: {arguments.rounds}", flush=True)
    models = load_models(arguments.layers)
    found: dict[str, list[dict[str, Any]]] = {}
    for corpus in arguments.corpus:
        keys = ("name", "seconds", "tokens", "tokens_computed", "flops")
        found[corpus] = [{key: getattr(row, key) for key in keys} for row in measure(corpus, models, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "corpora": found}, indent=1))


if __name__ == "__main__":
    main()
