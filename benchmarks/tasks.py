"""Every task from texts to columns, against the program that people would otherwise run it with.

    pip install -e ".[bench]"
    python -m benchmarks.tasks
    python -m benchmarks.tasks --tasks fill_mask --corpora S --repeats 8

RemBERT's width with fewer layers, random weights, float32. Ours is what a job's stages do with a shard, in one process:
tokenizing, windows, `Engine.run`, columns. The peers are pipelines of transformers with their default batch of 1 and
with a larger one in order of arrival, `sentence-transformers`' `encode` with its defaults, and padded loops where 5.x
has no pipeline. All of them tokenize; texts that SentencePiece and the `tokenizers` library cut differently are left
out, and what is computed is compared. `fill_mask` is also measured against the encoder alone, over windows with one
mask each that are there before the clock starts.
It must not read anything from outside of this repository, nor the network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks import task_peers
from benchmarks.checkpoints import LAYERS, save_random
from benchmarks.table import describe_machine, print_table, three
from benchmarks.task_in_process import WINDOWS, Inputs, TaskInProcess, mask_words, read_pairs, read_texts
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.masked_lm import KeptHidden
from rembert_ray.engine.runner import Head, Runner
from rembert_ray.ragged import flat_values
from rembert_ray.tasks.base import find_task
from rembert_ray.tasks.embed import EmbedHead

PEER_BATCHES = (1, 8)
# Pipelines give the vocabulary's logits of every token of the batch: at 8 x 512 tokens these are 4 GB.
FILL_BATCHES = (1,)
LABELS = {"id2label": {index: f"LABEL_{index}" for index in range(5)}}
TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64} | {
    "input_embedding_size": 16,
    "output_embedding_size": 16,
}
DEFAULT_CORPORA = {"embed": ["L", "U", "S"], "fill_mask": ["L", "S"]}
# A token of the `tokenizers` library takes the blank before it along, and a blank alone is an entity there.
BLANK = "▁"
# Rows in which a sum in another order may turn the balance between two almost equal labels.
MAX_DIFFERENT = 0.02
# Of vectors of length 1.
TOLERANCE = 1e-5
COLUMNS = (
    "task, corpus",
    "contender",
    "texts/s: min / median / max",
    "ours is faster by",
    "by round: min / median / max",
)


@dataclass(frozen=True)
class Case:
    """A task, and what its peers make of the same model and texts.

    peers: contenders, from a model folder and inputs.
    plain, simplify: our columns and a peer's result, in the form in which they are compared row by row.
    config: of the model. parameters: of the task.
    """

    peers: Callable[[Path, Inputs], Iterable[Contender]]
    plain: Callable[[dict[str, pa.Array]], Any]
    simplify: Callable[[Any], Any]
    config: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)


def pipelines(name: str, batch_sizes: tuple[int, ...] = PEER_BATCHES) -> Callable[[Path, Inputs], Iterator[Contender]]:
    """A pipeline of transformers with several batch sizes; one at a time holds its model."""

    def build(folder: Path, inputs: Inputs) -> Iterator[Contender]:
        run = task_peers.pipeline(name, folder, inputs["text"])
        for size in batch_sizes:
            yield Contender(f"transformers pipeline, batch {size}", lambda size=size: run(size))

    return build


def loops(build: Callable[..., Callable[[int], Any]]) -> Callable[[Path, Inputs], Iterator[Contender]]:
    """A padded loop over a model of transformers with several batch sizes."""

    def contenders(folder: Path, inputs: Inputs) -> Iterator[Contender]:
        run = build(folder, *inputs.values())
        for size in PEER_BATCHES:
            yield Contender(f"transformers, padded loop, batch {size}", lambda size=size: run(size))

    return contenders


def sentence_transformers(folder: Path, inputs: Inputs) -> Iterator[Contender]:
    """`encode` with its defaults, if it is installed."""
    if find_spec("sentence_transformers") is None:
        print("sentence-transformers is left out: pip install -e '.[bench]'")
        return
    yield Contender("sentence-transformers encode", task_peers.sentence_transformer(folder, inputs["text"]))


def vectors(columns: dict[str, pa.Array]) -> Any:
    """Float32 `[texts, hidden]`."""
    column = columns["embedding"]
    return flat_values(column).reshape(len(column), -1)


CASES = {
    "embed": Case(sentence_transformers, vectors, np.asarray),
    "classify": Case(
        pipelines("text-classification"),
        lambda columns: columns["label"].to_pylist(),
        lambda found: [row["label"] for row in found],
        LABELS,
    ),
    "tag": Case(
        pipelines("token-classification"),
        lambda columns: [[(e["end"], e["entity_group"]) for e in row] for row in columns["entities"].to_pylist()],
        lambda found: [[(e["end"], e["entity"]) for e in row if e["word"] != BLANK] for row in found],
        LABELS,
        {"aggregation": "none"},
    ),
    "answer": Case(
        loops(task_peers.answers),
        lambda columns: [(row[0]["start"], row[0]["end"]) for row in columns["answers"].to_pylist()],
        list,
        {"id2label": {0: "start", 1: "end"}},
        {"align_to_words": False},
    ),
    "choose": Case(loops(task_peers.choices), lambda columns: columns["choice"].to_pylist(), list),
    "fill_mask": Case(
        pipelines("fill-mask", FILL_BATCHES),
        lambda columns: [row[0][0]["token"] for row in columns["fills"].to_pylist()],
        lambda found: [row[0]["token"] for row in found],
    ),
}


def read_inputs(task: str, corpus: str, n_rows: int) -> Inputs:
    """Rows of a corpus in the task's form."""
    if task in ("answer", "choose"):
        return read_pairs(task, n_rows)
    inputs = read_texts(corpus, n_rows)
    return mask_words(inputs) if task == "fill_mask" else inputs


def difference(task: str, ours: Any, theirs: Any) -> str:
    """How far results are apart.

    Raises:
        SystemExit: so far that something else was computed.
    """
    if isinstance(ours, np.ndarray):
        worst = float(np.abs(ours - theirs).max())
        if worst > TOLERANCE:
            raise SystemExit(f"{task}: vectors differ by {worst:.1e}")
        return f"vectors differ by at most {worst:.1e}"
    n_other = sum(own != other for own, other in zip(ours, theirs, strict=True))
    if n_other > MAX_DIFFERENT * len(ours):
        raise SystemExit(f"{task}: {n_other} of {len(ours)} rows differ, for instance {ours[0]} and {theirs[0]}")
    return f"{n_other} of {len(ours)} rows differ"


def against_peers(
    job: TaskInProcess, folder: Path, task: str, inputs: Inputs, n_rounds: int, notes: list[str]
) -> list[Contender]:
    """Ours and the peers, timed and compared."""
    case = CASES[task]
    contenders = [Contender("ours", lambda: job.run(inputs)), *case.peers(folder, inputs)]
    take_turns(contenders, n_rounds)
    ours = case.plain(contenders[0].result)
    for peer in contenders[1:]:
        notes.append(f"{task}, {peer.name}: {difference(task, ours, case.simplify(peer.result))}")
    return contenders


def against_encoder(job: TaskInProcess, inputs: Inputs, n_rounds: int, notes: list[str]) -> list[Contender]:
    """`fill_mask` over windows with one mask each, and the same windows through the encoder alone."""
    windows = job.task.encode(inputs, job.tokenizer, WINDOWS).windows
    notes.append(
        f"fill_mask: {len(windows.kept)} masks in {len(windows)} windows of {windows.lengths.mean():.0f} tokens"
    )

    def encoder(head: Head) -> Runner:
        return Runner(job.model.encoder, head, torch.device("cpu"))

    contenders = [
        Contender("ours, windows to fills", lambda: job.engine.run(windows)),
        Contender("ours, encoder alone: mean of all tokens", lambda: encoder(EmbedHead("mean", None)).run(windows)),
        Contender("ours, encoder alone: masks", lambda: encoder(KeptHidden()).run(windows)),
    ]
    take_turns(contenders, n_rounds)
    return contenders


def rows_of(label: str, contenders: list[Contender], n_texts: int) -> list[tuple[str, ...]]:
    """Table rows; the first contender is ours."""
    ours, rows = contenders[0], []
    for contender in contenders:
        rates = three([n_texts / seconds for seconds in contender.seconds], ".1f")
        ratios = (
            ("", "")
            if contender is ours
            else (f"{ratio(contender, ours):.2f} x", three(by_round(contender, ours), ".2f"))
        )
        rows.append((label, contender.name, rates, *ratios))
    return rows


def measure(
    task: str, corpora: list[str], arguments: argparse.Namespace, notes: list[str]
) -> Iterator[tuple[str, ...]]:
    """Table rows of a task; what is to be said of them goes to `notes`."""
    size = {**(TINY if arguments.smoke else {}), **CASES[task].config}
    with tempfile.TemporaryDirectory(prefix="rembert-ray-tasks-") as name:
        folder = save_random(name, find_task(task).model_head, arguments.layers, **size)
        peers_folder = task_peers.save_for_peers(folder)
        job = TaskInProcess(folder, task, CASES[task].parameters)
        layers = job.model.encoder.layers
        # Copies share the weights; the last layer is told from the others by its identity.
        job.model.encoder.layers = torch.nn.ModuleList(
            copy(layer) for _ in range(arguments.repeats) for layer in layers
        )
        for corpus in ["XQuAD"] if task == "answer" else ["XCOPA"] if task == "choose" else corpora:
            inputs = read_inputs(task, corpus, arguments.texts)
            n_texts = len(next(iter(inputs.values())))
            label = f"{task}, {corpus}"
            if task == "fill_mask":
                yield from rows_of(label, against_encoder(job, inputs, arguments.rounds, notes), n_texts)
            if arguments.repeats == 1 and (task != "fill_mask" or corpus == "L"):
                peers = against_peers(job, peers_folder, task, inputs, arguments.rounds, notes)
                yield from rows_of(label, peers, n_texts)


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument(
        "--corpora", nargs="+", choices=("L", "U", "S"), help="L; of embed and fill_mask all that goals name"
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="encoder layers (4)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="run them so many times: 8 is fill_mask of 32 layers (1)"
    )
    parser.add_argument("--texts", type=int, default=96, help="rows of each corpus (96)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.texts, arguments.rounds = 1, 4, 1
    return arguments


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    task_peers.be_quiet()
    print(describe_machine())
    sizes = f"{arguments.texts} rows of each corpus, {arguments.rounds} rounds"
    print(f"{arguments.layers * arguments.repeats} layers, random weights, float32; {sizes}")
    notes: list[str] = []
    corpora = {task: arguments.corpora or DEFAULT_CORPORA.get(task, ["L"]) for task in arguments.tasks}
    print_table(
        COLUMNS, chain.from_iterable(measure(task, corpora[task], arguments, notes) for task in arguments.tasks)
    )
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
