"""A whole job on Ray over the forward alone, and over a plain Ray Data job with transformers.

    python -m benchmarks.pipeline                             # about 30 minutes; ten of them are the job
    python -m benchmarks.pipeline --seconds 60 --only forward ours
    python -m benchmarks.pipeline --seconds 60 --only ours --set resources.actors=2

`task: embed`, 4 full-width layers with random weights in float32, corpus L, from a manifest to `_SUCCESS` by
`rembert_ray.job.run`. The forward alone is the engine in this process with as many threads, its windows made before the
clock starts: half of the corpus before the job and half after it, because the speed of a shared machine drifts. The job
counts from the first shard that is handed out to the last object that is there; the start of Ray and of the workers is
shown apart. The peer runs on a part of the corpus, and so does ours beside it; whoever comes first changes nothing.
It must not read anything from outside of this repository, nor the network.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from benchmarks import naive_ray_data
from benchmarks.checkpoints import LAYERS, save_random
from benchmarks.shares import Job, show_shares, show_stages
from benchmarks.table import describe_machine, print_table
from benchmarks.texts import N_SPECIAL, ROOT, load_tokenizer, real_lengths, windows_of
from benchmarks.timeline import CpuWatch, read_timeline
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.runner import Engine
from rembert_ray.job import run
from rembert_ray.models.config import AutoConfig
from rembert_ray.models.weight_map import BASE
from rembert_ray.report.narration import Narrator
from rembert_ray.storage.location import locate
from rembert_ray.tasks.embed import Embed, EmbedParameters
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast

PARTS = ("forward", "ours", "naive")
SHARD_ROWS = 1000
LEAST_SHARDS = 8
CALIBRATION_TEXTS = 128
# The tokenizers library cuts some texts otherwise than SentencePiece does; the others must have the same vectors.
LEAST_SAME_TOKENS, LEAST_COSINE = 0.5, 0.9999
SMOKE = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "input_embedding_size": 16}

MANIFEST = """
task: embed
model: model
input: {{path: {corpus}, keep: [id]}}
output: {{path: {output}}}
sharding: {{rows: {rows}}}
"""


class Bench:
    """A folder with a checkpoint and corpora, and the runs over them."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.overrides, self.shard_rows = folder, tuple(arguments.set), arguments.shard_rows
        # The peer's reading and writing need a CPU beside its actor's.
        self.n_threads = max(2, torch.get_num_threads())
        torch.set_num_threads(self.n_threads)
        self.model = save_random(folder / "model", BASE, arguments.layers, **(SMOKE if arguments.smoke else {}))

    def load_engine(self) -> Engine:
        """The engine as an infer actor has it."""
        task, where = Embed(EmbedParameters()), locate(str(self.model))
        model = task.load_model(where, AutoConfig.from_pretrained(str(self.model)), torch.float32, torch.device("cpu"))
        prepack_linears(model)
        return task.engine(model, torch.device("cpu"), None)

    def calibrate(self) -> float:
        """Texts a second of the forward alone, roughly."""
        engine, windows = self.load_engine(), windows_of(real_lengths(CALIBRATION_TEXTS))
        seconds = min(timed(engine, windows) for _ in range(2))
        return CALIBRATION_TEXTS / seconds

    def forward(self, texts: list[str]) -> float:
        """Seconds of the forward alone over the shards of these texts."""
        engine = self.load_engine()
        tables = [windows_of(texts[first : first + self.shard_rows]) for first in range(0, len(texts), self.shard_rows)]
        timed(engine, tables[0].take(np.arange(min(32, len(tables[0])))))
        return sum(timed(engine, table) for table in tables)

    def write_corpus(self, name: str, texts: list[str]) -> Path:
        """A Parquet file in row groups of a shard each."""
        path = self.folder / f"{name}.parquet"
        table = pa.table({"id": np.arange(len(texts)), "text": pa.array(texts, pa.string())})
        pq.write_table(table, path, row_group_size=self.shard_rows)
        return path

    def ours(self, name: str, corpus: Path) -> Job:
        """The job, from manifest to `_SUCCESS`."""
        output = self.folder / f"{name}.ours"
        manifest = self.folder / f"{name}.yaml"
        manifest.write_text(MANIFEST.format(corpus=corpus, output=output, rows=self.shard_rows))
        shown, started = io.StringIO(), time.time()
        with CpuWatch() as watch:
            exit_code = run(str(manifest), self.overrides, Narrator(Console(file=shown, width=200)))
        if exit_code:
            raise SystemExit(shown.getvalue())
        print(next(line for line in shown.getvalue().splitlines() if line.startswith("workers")))
        timeline = read_timeline(output)
        cpu_s = watch.seconds_by_role(timeline.began, timeline.began + timeline.seconds)
        return Job(timeline.seconds, max(timeline.committed) - started, timeline, cpu_s)

    def naive(self, name: str, corpus: Path) -> Job:
        """The peer on the same corpus, with the tokenizer's ids as near as the tokenizers library gets."""
        peer, output = self.folder / "peer", self.folder / f"{name}.naive"
        if not peer.exists():
            shutil.copytree(self.model, peer, ignore=shutil.ignore_patterns("sentencepiece.model"))
            RemBertTokenizerFast.from_pretrained(self.model).save_pretrained(peer)
        started = time.time()
        naive_ray_data.run(corpus, peer, output, self.n_threads)
        ended = max(path.stat().st_ctime for path in output.glob("*.parquet"))
        began = min(pq.read_table(output, columns=["began_at"]).column("began_at").to_pylist())
        return Job(ended - began, ended - started, None, {})

    def check_same(self, name: str) -> str:
        """Compare the vectors of ours and of the peer.

        Raises:
            SystemExit: rows are missing, or vectors of texts of the same number of tokens differ.
        """
        columns = ["id", "embedding", "n_tokens"]
        files = [sorted((self.folder / f"{name}.{who}").glob("*.parquet")) for who in ("ours", "naive")]
        tables = [pa.concat_tables(pq.read_table(file, columns=columns) for file in found) for found in files]
        ours, theirs = (table.sort_by("id") for table in tables)
        if not ours["id"].equals(theirs["id"]):
            raise SystemExit(f"{ours.num_rows} rows of ours, {theirs.num_rows} of the peer")
        a, b = (np.array(table["embedding"].to_pylist(), np.float32) for table in (ours, theirs))
        cosine, is_same = (a * b).sum(1), np.equal(np.asarray(ours["n_tokens"]) + N_SPECIAL, theirs["n_tokens"])
        typical = float(np.median(cosine[is_same]))
        if is_same.mean() < LEAST_SAME_TOKENS or typical < LEAST_COSINE:
            raise SystemExit(f"{is_same.mean():.0%} of texts with as many tokens, median cosine {typical:.6f}")
        return f"{is_same.mean():.0%} of texts with as many tokens in both, the median cosine of these is {typical:.6f}"


def timed(engine: Engine, windows: Any) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    result = engine.run(windows)
    if result.failures:
        raise SystemExit(f"not every window was computed: {result.failures}")
    return time.perf_counter() - started


@contextmanager
def cluster(n_cpus: int) -> Iterator[None]:
    """A Ray of its own, away from the user's settings."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=n_cpus,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        )
        print(f"Ray started in {time.perf_counter() - started:.1f} s", flush=True)
        try:
            yield
        finally:
            ray.shutdown()


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of the forward alone, roughly (600)")
    parser.add_argument("--naive-seconds", type=float, default=60.0, help="the same for the part with the peer (60)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the parts")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"encoder layers ({LAYERS})")
    parser.add_argument("--shard-rows", type=int, default=SHARD_ROWS, help=f"rows of a shard, at most ({SHARD_ROWS})")
    parser.add_argument("--texts", type=int, help="so many instead of --seconds")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="for the manifest of ours")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and few texts")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.texts = 1, 96
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="rr-pipeline-") as name:
        bench = Bench(Path(name), arguments)
        n_texts = arguments.texts or round(bench.calibrate() * arguments.seconds)
        texts = real_lengths(n_texts)
        bench.shard_rows = min(bench.shard_rows, -(-n_texts // LEAST_SHARDS))
        n_part = min(n_texts, max(64, round(n_texts * arguments.naive_seconds / arguments.seconds)))
        print(f"corpus L, {n_texts:,} texts; {arguments.layers} layers, {bench.n_threads} threads\n", flush=True)
        load_tokenizer()
        if "forward" in arguments.only or "ours" in arguments.only:
            measure_job(bench, texts, "forward" in arguments.only, "ours" in arguments.only)
        if "naive" in arguments.only:
            measure_peer(bench, texts[:n_part])


def measure_job(bench: Bench, texts: list[str], with_forward: bool, with_job: bool) -> None:
    """The job between two halves of the forward alone."""
    middle = -(-len(texts) // 2 // bench.shard_rows) * bench.shard_rows
    forward_s = [bench.forward(texts[:middle])] if with_forward else []
    if with_job:
        corpus = bench.write_corpus("all", texts)
        with cluster(bench.n_threads):
            job = bench.ours("all", corpus)
        assert job.timeline is not None
        rate = job.timeline.n_tokens / job.seconds
        print(f"job         {job.seconds:.1f} s, {job.whole_s:.1f} s with the start; {rate:,.0f} tokens/s\n")
        show_stages(job, bench.n_threads)
    if with_forward:
        forward_s.append(bench.forward(texts[middle:]))
        print(f"\nforward     {forward_s[0]:.1f} + {forward_s[1]:.1f} s alone, before and after\n")
    if with_forward and with_job:
        show_shares(job, sum(forward_s))


def measure_peer(bench: Bench, texts: list[str]) -> None:
    """Ours and the peer on the same texts and the same cluster."""
    corpus = bench.write_corpus("part", texts)
    with cluster(bench.n_threads):
        ours, theirs = bench.ours("part", corpus), bench.naive("part", corpus)
    print(f"{len(texts):,} texts; {bench.check_same('part')}\n")
    pairs = {
        "first batch to last object": (ours.seconds, theirs.seconds),
        "with the start of the workers": (ours.whole_s, theirs.whole_s),
    }
    rows = [[name, f"{own:.1f}", f"{other:.1f}", f"{other / own:.2f} x"] for name, (own, other) in pairs.items()]
    print_table(("", "ours, s", "plain Ray Data job, s", "ours is faster by"), rows)


if __name__ == "__main__":
    main()
