"""The packed forward against Hugging Face's RemBERT: same weights, same real texts, one run, one table.

    pip install -e ".[bench]"
    python benchmarks/engine.py
    python benchmarks/engine.py --budgets 768,1024,1536,2048

Sizes are RemBERT's (hidden 1152, 18 heads, intermediate 4608, input embedding 256) with fewer layers and random
weights in float32. The vocabulary is the demo's (12,000 pieces): rows of the embedding table are looked up, so its
size does not matter. Lengths are those of the demo's texts, cut into windows of 512 tokens as `task: embed` does.

Every contender pools by summing the hidden states of each window. Ours is `Runner.run`, all of it; Hugging Face's
batches are padded and sorted before the clock starts, which favours it. The roof is the linear layers alone, in large
batches, by the faster of two libraries. The speed of a shared machine drifts, so contenders take turns, and best is
compared with best.
It must not read anything from outside of this repository, nor the network.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rembert_ray.engine.packing import Long, WindowTable, find_equal
from rembert_ray.engine.precision import PrepackedLinear, prepack_linears
from rembert_ray.engine.runner import CPU_BATCH_TOKENS, Runner
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.tasks.embed import Embed, EmbedHead, EmbedParameters
from rembert_ray.tokenizers.rembert import RemBertTokenizer

DEMO = Path(__file__).parents[1] / "demo"
# Short messages, sentences and paragraphs, as crawled and annotated corpora hold them: most texts are short, most
# tokens stand in long ones.
MIX = {"tatoeba_sentences": 0.25, "sib200_sentences": 0.30, "treebank_sentences": 0.25, "xquad_paragraphs": 0.20}
SHARD_TEXTS = 2000
RUN_WINDOWS = 32
WINDOW_TOKENS = 512
OVERLAP = 64
SEED = 20
ROOF_TOKENS = (1536, 4096)
N_WARM_UP_WINDOWS = 6
# Name, windows a batch, whether windows are sorted by length.
PEERS = (("1", 1, False), ("32, arrival order", 32, False), ("32, sorted", 32, True), ("8, sorted", 8, True))
OURS = "ours, packed"
ROOF = "roof: linear layers alone"

COLUMNS = (
    "contender",
    "tokens computed / real",
    "useful tokens/s: min / median / max",
    "useful GFLOP/s",
    "ours is faster by",
    "round by round: min / median / max",
    "of the roof",
)
# CPU seconds leave out the time in which other processes had the core.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Float32 sums in another order; larger differences mean that somebody computes something else.
TOLERANCE = 1e-4

Vectors = NDArray[np.float32]
Run = Callable[[], Vectors | None]


@dataclass
class Contender:
    """One way to do the work.

    prepare: makes a run over a table; what it does is not timed. A run returns float32 `[windows, hidden]`, the sum
        of the hidden states of each window, or None if it computes something else (the roof).
    n_tokens_computed: tokens of the sample with padding.
    flops: useful work of one run; padding does not count.
    """

    name: str
    prepare: Callable[[WindowTable], Run]
    n_tokens_computed: int
    flops: float
    seconds: list[float] = field(default_factory=list)

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s of the best round."""
        return self.flops / min(self.seconds) / 1e9


def read_shard(tokenizer: RemBertTokenizer) -> WindowTable:
    """Windows of `SHARD_TEXTS` distinct texts of the demo's corpus, mixed by `MIX`, in order of arrival (shuffled)."""
    random = np.random.default_rng(SEED)
    texts: list[str] = []
    for name, share in MIX.items():
        found = sorted(set(pq.read_table(DEMO / "corpus" / f"{name}.parquet").column("text").to_pylist()))
        texts += [found[index] for index in random.choice(len(found), round(share * SHARD_TEXTS), replace=False)]
    table = Embed(EmbedParameters()).encode(texts, tokenizer, WINDOW_TOKENS - 2, OVERLAP).windows
    # Whole windows: a job reads tokens that windows share from one of them only. And distinct ones: the runner
    # computes equal windows once, which is not what is compared here.
    table = replace(table, kept_starts=np.zeros_like(table.kept_starts), kept_ends=table.lengths.astype(np.int32))
    return table.take(random.permutation(find_equal(table)[0]))


def take_sample(shard: WindowTable, n_windows: int) -> WindowTable:
    """Every so many-th run of `RUN_WINDOWS` neighbours in the order of length, shuffled again.

    Single texts drawn from the shard would lie far apart in length, and sorted batches of them would be padded as no
    sorted shard is. What is lost is some of the tail, so batches in order of arrival are padded less than in reality.
    """
    n_runs = max(1, len(shard) // RUN_WINDOWS)
    n_wanted = min(max(1, n_windows // RUN_WINDOWS), n_runs)
    middles = ((np.arange(n_wanted) + 0.5) * n_runs / n_wanted).astype(np.int64)
    chosen = (middles[:, None] * RUN_WINDOWS + np.arange(RUN_WINDOWS)).ravel()
    by_length = np.argsort(-shard.lengths, kind="stable")
    return shard.take(np.random.default_rng(SEED).permutation(by_length[chosen]))


def count_flops(lengths: Long, config: Any) -> float:
    """Additions and multiplications of the matrix products that these windows need."""
    hidden, inner = config.hidden_size, config.intermediate_size
    linear = 2 * hidden * (4 * hidden + 2 * inner)
    per_token = config.num_hidden_layers * linear + 2 * config.input_embedding_size * hidden
    attention = config.num_hidden_layers * 4 * hidden
    return float(per_token * lengths.sum() + attention * (lengths**2).sum())


def split_batches(lengths: Long, batch_size: int, *, is_sorted: bool) -> Iterator[Long]:
    """Indices of windows, `batch_size` at a time, in order of arrival or longest first."""
    order = np.argsort(-lengths, kind="stable") if is_sorted else np.arange(len(lengths))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def count_padded(lengths: Long, batch_size: int, *, is_sorted: bool) -> int:
    """Tokens that padding each batch to its longest window computes."""
    batches = split_batches(lengths, batch_size, is_sorted=is_sorted)
    return sum(len(windows) * int(lengths[windows].max()) for windows in batches)


def run_packed(model: RemBertModel, batch_tokens: int) -> Callable[[WindowTable], Run]:
    """What an actor of a job runs: equal windows, packing, the forward, the head, the order of the windows."""
    runner = Runner(model.encoder, EmbedHead("mean", None), torch.device("cpu"), batch_tokens)

    def prepare(table: WindowTable) -> Run:
        def run() -> Vectors:
            result = runner.run(table)
            if result.failures or result.facts.n_tokens_computed != len(table.ids):
                raise SystemExit(f"not every window was computed: {result.failures or 'some are equal'}")
            return result.values["vector"].astype(np.float32, copy=False)

        return run

    return prepare


def run_hugging_face(model: Any, batch_size: int, *, is_sorted: bool) -> Callable[[WindowTable], Run]:
    """Padded batches with an attention mask; no mask where all windows of a batch are equally long."""

    def prepare(table: WindowTable) -> Run:
        rows = torch.split(torch.from_numpy(table.ids.astype(np.int64)), table.lengths.tolist())
        batches: list[tuple[Long, Tensor, Tensor | None]] = []
        for windows in split_batches(table.lengths, batch_size, is_sorted=is_sorted):
            ids = nn.utils.rnn.pad_sequence([rows[window] for window in windows], batch_first=True)
            ends = torch.from_numpy(table.lengths[windows])[:, None]
            mask = torch.arange(ids.shape[1])[None] < ends
            batches.append((windows, ids, None if bool(mask.all()) else mask.long()))

        def run() -> Vectors:
            vectors = np.empty((len(table), model.config.hidden_size), np.float32)
            for windows, ids, mask in batches:
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                vectors[windows] = (hidden if mask is None else hidden * mask[..., None]).sum(1).numpy()
            return vectors

        return run

    return prepare


def run_linears(linears: list[Any], widths: list[int], n_rows: int) -> Callable[[WindowTable], Run]:
    """The matrix products of the layers and nothing else, each on `n_rows` rows."""
    inputs = {width: torch.randn(n_rows, width) for width in set(widths)}

    def run() -> None:
        for linear, width in zip(linears, widths, strict=True):
            linear(inputs[width])

    return lambda _: run


def roofs(model: RemBertModel) -> list[Contender]:
    """The linear layers as torch runs them and as oneDNN runs them prepacked; the fastest is the roof."""
    linears = [module for module in model.encoder.layers.modules() if isinstance(module, nn.Linear)]
    widths = [linear.in_features for linear in linears]
    n_weights = sum(linear.weight.numel() for linear in linears)
    kinds: dict[str, list[Any]] = {
        "torch": list(linears),
        "prepacked": [PrepackedLinear(linear) for linear in linears],
    }
    return [
        Contender(f"{ROOF}, {kind}, {n:,} rows", run_linears(kinds[kind], widths, n), n, 2.0 * n * n_weights)
        for kind in kinds
        for n in ROOF_TOKENS
    ]


def take_turns(
    contenders: list[Contender], table: WindowTable, n_rounds: int, clock: Callable[[], float]
) -> dict[str, Vectors]:
    """Fill in the seconds of each contender by `clock`, one run a round; return what each computed."""
    found: dict[str, Vectors] = {}
    for contender in contenders:
        contender.prepare(table.take(np.arange(min(N_WARM_UP_WINDOWS, len(table)))))()
    runs = [(contender, contender.prepare(table)) for contender in contenders]
    for turn in range(n_rounds):
        # Another one begins each round, so that none always follows the same neighbour.
        first = turn % len(runs)
        for contender, run in runs[first:] + runs[:first]:
            started = clock()
            vectors = run()
            contender.seconds.append(clock() - started)
            if vectors is not None:
                found[contender.name] = vectors
        print(f"round {turn + 1} of {n_rounds}", end="\r", file=sys.stderr, flush=True)
    return found


def largest_difference(found: dict[str, Vectors], table: WindowTable) -> float:
    """Between the mean vectors of ours and of everybody else.

    Raises:
        SystemExit: it is more than `TOLERANCE`.
    """
    means = [vectors / table.lengths[:, None] for vectors in found.values()]
    worst = max(float(np.abs(mean - means[0]).max()) for mean in means)
    if not worst <= TOLERANCE:
        raise SystemExit(f"mean vectors differ by {worst:.1e}, more than {TOLERANCE:.0e}: not the same computation")
    return worst


def print_table(contenders: list[Contender], ours: Contender, n_tokens: int) -> None:
    """Rates are of real tokens, slowest / median / fastest round; ratios compare the fastest rounds."""
    roof = max(contender.gflops for contender in contenders if contender.name.startswith(ROOF))
    print_row(*COLUMNS)
    print_row("---", *["--:"] * (len(COLUMNS) - 1))
    for contender in contenders:
        share = f"{contender.gflops / roof:.0%}"
        gflops = f"{contender.gflops:.0f}"
        if contender.name.startswith(ROOF):
            print_row(contender.name, "", "", gflops, "", "", share)
            continue
        rates = three([n_tokens / seconds for seconds in contender.seconds], ",.0f")
        by_round = three(np.array(contender.seconds) / np.array(ours.seconds), ".2f")
        best = f"{min(contender.seconds) / min(ours.seconds):.2f} x"
        print_row(contender.name, f"{contender.n_tokens_computed / n_tokens:.2f}", rates, gflops, best, by_round, share)


def print_row(*cells: str) -> None:
    """One line of a Markdown table."""
    print("|", " | ".join(cells), "|")


def three(values: Any, style: str) -> str:
    """Minimum, median and maximum."""
    return " / ".join(format(float(value), style) for value in (np.min(values), np.median(values), np.max(values)))


def describe_machine() -> str:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    processor = f"{names[0]}, {len(names)} cores" if names else platform.processor()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    kernels = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    load = f"load {os.getloadavg()[0]:.1f} before the start"
    return f"{processor}, {kernels}, {load}; Python {platform.python_version()}, {versions}"


def describe_lengths(name: str, lengths: Long) -> str:
    """Lengths of windows, and what padded batches of them compute."""
    p50, p90 = np.percentile(lengths, [50, 90])
    padding = "; ".join(
        f"{label} {count_padded(lengths, size, is_sorted=is_sorted) / lengths.sum():.2f}"
        for label, size, is_sorted in PEERS[1:]
    )
    return (
        f"{name}: {len(lengths):,} windows, {int(lengths.sum()):,} tokens, mean {lengths.mean():.0f}, p50 {p50:.0f}, "
        f"p90 {p90:.0f}, max {lengths.max()}; tokens that a batch computes for each real one: {padding}"
    )


def load_models(n_layers: int, vocab_size: int) -> tuple[Any, RemBertModel, RemBertModel]:
    """Hugging Face's model with random weights; ours with the same weights, plain and prepacked."""
    import transformers

    config = transformers.RemBertConfig(vocab_size=vocab_size, num_hidden_layers=n_layers)
    # Attention is eager: transformers has no other for RemBERT.
    theirs: Any = transformers.RemBertModel(config, add_pooling_layer=False)
    theirs.eval()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        plain = RemBertModel.from_pretrained(folder, add_pooling_layer=False)
    prepacked = copy.deepcopy(plain)
    if not prepack_linears(prepacked):
        print("this torch has no oneDNN: nothing is prepacked")
    return theirs, plain, prepacked


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="encoder layers (4)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--texts", type=int, default=96, help=f"windows in the sample, in runs of {RUN_WINDOWS} (96)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads (all cores)")
    parser.add_argument("--budgets", default="", help="compare only ours, with these tokens a batch: 768,1024")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: for a busy machine; needs --threads 1")
    arguments = parser.parse_args()
    if min(arguments.layers, arguments.rounds, arguments.threads) < 1:
        parser.error("--layers, --rounds and --threads are at least 1")
    if arguments.clock == "cpu" and arguments.threads != 1:
        # Threads that wait for each other spin, and that would count as work.
        parser.error("--clock cpu needs --threads 1")
    return arguments


def choose_contenders(arguments: argparse.Namespace, lengths: Long, vocab_size: int) -> list[Contender]:
    """All contenders, ours first and the roofs last."""
    theirs, plain, prepacked = load_models(arguments.layers, vocab_size)
    flops, n_tokens = count_flops(lengths, theirs.config), int(lengths.sum())
    if arguments.budgets:
        budgets = [int(budget) for budget in arguments.budgets.split(",")]
        ours = [Contender(f"{OURS}, {b:,} tokens", run_packed(prepacked, b), n_tokens, flops) for b in budgets]
        return ours + roofs(plain)
    contenders = [
        Contender(OURS, run_packed(prepacked, CPU_BATCH_TOKENS), n_tokens, flops),
        Contender(f"{OURS}, not prepacked", run_packed(plain, CPU_BATCH_TOKENS), n_tokens, flops),
    ]
    for name, size, is_sorted in PEERS:
        padded = count_padded(lengths, size, is_sorted=is_sorted)
        prepare = run_hugging_face(theirs, size, is_sorted=is_sorted)
        contenders.append(Contender(f"transformers, batch {name}", prepare, padded, flops))
    return contenders + roofs(plain)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    tokenizer = RemBertTokenizer.from_pretrained(DEMO / "model")
    shard = read_shard(tokenizer)
    table = take_sample(shard, arguments.texts)
    contenders = choose_contenders(arguments, table.lengths, len(tokenizer))
    print(describe_machine(), describe_lengths("shard", shard.lengths), sep="\n")
    print(describe_lengths("sample", table.lengths))
    print(f"{arguments.layers} layers, {contenders[0].flops / 1e9:,.0f} useful GFLOP a run\n", flush=True)
    found = take_turns(contenders, table, arguments.rounds, CLOCKS[arguments.clock])
    worst = largest_difference(found, table)
    print_table(contenders, contenders[0], len(table.ids))
    print(f"\n{arguments.rounds} rounds, {arguments.clock} clock; mean vectors differ from ours by at most {worst:.1e}")


if __name__ == "__main__":
    main()
