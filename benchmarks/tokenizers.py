"""Tokenizing on one core: ours, transformers' `__call__` and the raw libraries, with the same 250,300 pieces.

    python -m benchmarks.tokenizers                    # about three minutes: corpora L, U and S
    python -m benchmarks.tokenizers --corpora L --rounds 9

Every contender gets a list of texts. Ours makes what a shard needs: flat int32 ids and row splits, or those and
offsets. transformers makes lists; one row also turns them into flat ids. Whoever makes ids is compared with our
`RemBertTokenizer` that makes ids, whoever makes offsets with the one that makes offsets. `Encode` is that stage of a
job, from the columns that were read to documents with windows. The process keeps to one core.

Two checks stop the benchmark: ours must have exactly SentencePiece's ids, and transformers exactly those of our
`RemBertTokenizerFast`. SentencePiece and the `tokenizers` library differ on a few texts (see `rembert_fast.py`).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import CORPORA, TOKENIZER, load_tokenizer
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.documents import WindowOptions
from rembert_ray.models.config import RemBertConfig
from rembert_ray.plan import Shard
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import Task, find_task
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast
from rembert_ray.tokenizers.roberta import RobertaTokenizer

N_TEXTS = {"L": 3200, "U": 300, "S": 9000}
SMOKE_TEXTS = 40
N_BPE_PIECES = 8000
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
IDS, OFFSETS, BPE = "ids", "offsets", "ids, byte-level BPE"
STAGES = {"embed": IDS, "tag": OFFSETS}
"""Tasks whose stage is measured, and what they need of the tokenizer."""
COLUMNS = ["contender", "million tokens a second", "time over ours", "in each round"]
LOADERS = {
    "rembert-ray, RemBertTokenizer": "from rembert_ray import RemBertTokenizer as T",
    "rembert-ray, RemBertTokenizerFast": "from rembert_ray import RemBertTokenizerFast as T",
    "transformers, RemBertTokenizer": "from transformers import RemBertTokenizer as T",
}
CHILD = """
import json, sys, time
import numpy, tokenizers
{loader}
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before, started = status("VmRSS"), time.perf_counter()
tokenizer = T.from_pretrained(sys.argv[1])
seconds = time.perf_counter() - started
tokenizer(["A text."], return_offsets_mapping=True)
print(json.dumps([seconds, status("VmRSS") - before, status("VmHWM") - before]))
"""
Kind = tuple[str, Contender]


def rembert_contenders(texts: list[str], fast: RemBertTokenizerFast, peer: Any) -> list[Kind]:
    """Everybody with the 250,300 pieces, each with what it makes; the first of a kind is ours."""
    ours = load_tokenizer()
    processor, library = ours._encoder.processor, fast.backend_tokenizer
    runs: list[tuple[str, str, Callable[[], Any]]] = [
        (IDS, "ours, RemBertTokenizer", lambda: ours.encode_batch(texts)),
        (IDS, "transformers __call__", lambda: peer(texts)),
        (IDS, "transformers __call__, then flat ids", lambda: flat_ids(peer(texts)["input_ids"])),
        (IDS, "ours, RemBertTokenizerFast", lambda: fast.encode_batch(texts)),
        (IDS, "raw tokenizers encode_batch_fast", lambda: library.encode_batch_fast(texts)),
        (IDS, "raw sentencepiece, numpy rows", lambda: processor.encode(texts, return_type="numpy")),
        (OFFSETS, "ours, RemBertTokenizer", lambda: ours.encode_batch(texts, with_offsets=True)),
        (OFFSETS, "transformers __call__", lambda: peer(texts, return_offsets_mapping=True)),
        (OFFSETS, "ours, RemBertTokenizerFast", lambda: fast.encode_batch(texts, with_offsets=True)),
        (OFFSETS, "raw sentencepiece, offset_mapping", lambda: processor.encode(texts, return_type="offset_mapping")),
    ]
    if peer is None:
        runs = [run for run in runs if not run[1].startswith("transformers")]
    return [(kind, Contender(name, silent(run))) for kind, name, run in runs]


def silent(run: Callable[[], Any]) -> Callable[[], None]:
    """What a run makes is freed within its time: many Python objects would slow down everybody who comes after."""

    def wrapped() -> None:
        run()

    return wrapped


def flat_ids(rows: list[list[int]]) -> tuple[Any, Any]:
    """Rows as flat ids and lengths."""
    return np.fromiter(chain.from_iterable(rows), dtype=np.int32), np.fromiter(map(len, rows), dtype=np.int64)


def roberta_contenders(texts: list[str], folder: Path) -> list[Kind]:
    """Ours and transformers' RoBERTa with pieces that are trained on the texts; none may be had from the network."""
    trainer = tokenizers.ByteLevelBPETokenizer()
    trainer.train_from_iterator(texts[:1000], N_BPE_PIECES, show_progress=False, special_tokens=ROBERTA_SPECIALS)
    trainer.save_model(str(folder))
    ours = RobertaTokenizer(folder / "vocab.json", folder / "merges.txt")
    ours.save_pretrained(folder)
    contenders = [(BPE, Contender("ours, RobertaTokenizer", silent(lambda: ours.encode_batch(texts))))]
    if find_spec("transformers"):
        from transformers import RobertaTokenizer as Peer

        peer: Any = Peer.from_pretrained(folder)
        if peer(texts)["input_ids"] != ours(texts)["input_ids"]:
            raise SystemExit("RobertaTokenizer: transformers has other ids than ours")
        contenders.append((BPE, Contender("transformers __call__", silent(lambda: peer(texts)))))
    return contenders


class StageRun:
    """The `Encode` stage over one shard, again and again.

    seconds: of its phase `encode` in each run: columns to documents with windows, without the reading of the file.
    """

    def __init__(self, task: str, texts: list[str], folder: Path) -> None:
        path = folder / "corpus.parquet"
        pq.write_table(pa.table({"text": texts}), path)
        RemBertConfig().save_pretrained(str(folder))
        load_tokenizer().save_pretrained(folder)
        kind = find_task(task)
        self.stage = Encode(make_spec(kind(kind.Parameters()), folder))
        self.shard = Shard(0, str(path), 0, len(texts), {}, "plan")
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """One run."""
        self.seconds.append(self.stage.encode(Envelope(self.shard)).facts["encode_s"])


def make_spec(task: Task, folder: Path) -> JobSpec:
    """A job that reads the column `text` and keeps nothing."""
    return JobSpec(
        task=task,
        config=RemBertConfig(),
        model=locate(str(folder)),
        output=locate(str(folder / "output")),
        columns={"text": "text"},
        kept=pa.schema([]),
        windows=WindowOptions(RemBertConfig().max_tokens, overlap=0),
        fingerprint="",
        plan_id="plan",
        run_id="run",
        precision="float32",
    )


def check_ids(texts: list[str], fast: RemBertTokenizerFast, peer: Any) -> str:
    """A line on how many texts have the same ids everywhere.

    Raises:
        SystemExit: ours are not SentencePiece's, or transformers' are not those of our fast one.
    """
    ours = load_tokenizer()
    encoding = ours.encode_batch(texts, add_special_tokens=False)
    rows = np.split(encoding.ids, encoding.row_splits[1:-1])
    raw = ours._encoder.processor.encode(texts)
    if [row.tolist() for row in rows] != raw:
        raise SystemExit("RemBertTokenizer has other ids than SentencePiece")
    theirs = fast(texts, add_special_tokens=False)["input_ids"]
    if peer is not None and peer(texts, add_special_tokens=False)["input_ids"] != theirs:
        raise SystemExit("RemBertTokenizerFast has other ids than transformers")
    n_same = sum(a == b for a, b in zip(raw, theirs, strict=True))
    return f"{len(texts):,} texts, {len(encoding.ids):,} tokens, {n_same / len(texts):.1%} with the same ids in all"


def measure(corpus: str, n_texts: int, n_rounds: int, fast: RemBertTokenizerFast, peer: Any) -> None:
    """One corpus: check, take turns, print the table."""
    texts = CORPORA[corpus](n_texts)
    print(f"\n{corpus}: {check_ids(texts, fast, peer)}\n", flush=True)
    n_tokens = len(load_tokenizer().encode_batch(texts).ids)
    with tempfile.TemporaryDirectory(prefix="rembert-ray-tokenizers-") as name:
        contenders = rembert_contenders(texts, fast, peer) + roberta_contenders(texts, Path(name))
        stages = {task: StageRun(task, texts, Path(name)) for task in STAGES}
        staged = [(kind, Contender(f"ours, Encode of task {task}", stages[task])) for task, kind in STAGES.items()]
        gc.collect()
        take_turns([contender for _, contender in contenders + staged], n_rounds)
    for (_, contender), task in zip(staged, STAGES, strict=True):
        contender.seconds = stages[task].seconds[1:]
    ours: dict[str, Contender] = {}
    rows = []
    for kind, contender in contenders + staged:
        own = ours.setdefault(kind, contender)
        speeds = three([n_tokens / seconds / 1e6 for seconds in contender.seconds], ".2f")
        ratios = [f"{ratio(contender, own):.2f} x", three(by_round(contender, own), ".2f")]
        rows.append([f"{kind}: {contender.name}", speeds, *ratios])
    print_table(COLUMNS, rows)


def measure_loading(folder: Path) -> None:
    """Seconds and memory of each tokenizer in a fresh process."""
    rows = []
    for name, loader in LOADERS.items():
        if name.startswith("transformers") and not find_spec("transformers"):
            continue
        command = [sys.executable, "-c", CHILD.format(loader=loader), str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, held, peak = json.loads(done.stdout.splitlines()[-1])
        rows.append([name, f"{seconds:.2f} s", f"{held / 2**20:.0f} MiB", f"{peak / 2**20:.0f} MiB"])
    print("\nloading, and one text with offsets, in a fresh process\n")
    print_table(["tokenizer", "loading", "memory afterwards", "peak"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA))
    parser.add_argument("--rounds", type=int, default=7, help="runs of each contender (7)")
    parser.add_argument("--smoke", action="store_true", help="a few texts, to see that it runs")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"], os.environ["RAYON_NUM_THREADS"] = "false", "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(describe_machine(), "one core", sep="; ")
    fast = RemBertTokenizerFast.from_pretrained(TOKENIZER)
    with tempfile.TemporaryDirectory(prefix="rembert-ray-tokenizers-") as name:
        fast.save_pretrained(name)
        peer: Any = None
        if find_spec("transformers"):
            from transformers import RemBertTokenizer as Peer

            peer = Peer.from_pretrained(name)
        else:
            print("transformers is left out: pip install -e '.[bench]'")
        for corpus in arguments.corpora:
            n_texts, n_rounds = (SMOKE_TEXTS, 1) if arguments.smoke else (N_TEXTS[corpus], arguments.rounds)
            measure(corpus, n_texts, n_rounds, fast, peer)
        measure_loading(Path(name))


if __name__ == "__main__":
    main()
