"""What each word of `precision` costs in accuracy and gains in speed, against float32 on the same device.

    python -m benchmarks.precision
    python -m benchmarks.precision --precisions float32,bfloat16 --rounds 9

Two models: the demo's tagger, which is trained and small, and RemBERT's width with fewer layers and random weights.
Drift is that of last hidden states, of mean-pooled vectors (cosine with float32's, and whether the nearest other text
is still the same one), and of the tagger's labels. Speed is that of `Runner.run` on corpus L; contenders take turns,
and best is compared with best. On CPU float16 and float8 have no fast products: their drift is measured, and
their speed is not; int8 is for CPUs. It must not read anything from outside of this repository, nor the network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.checkpoints import LAYERS, save_random
from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import DEMO, real_lengths, windows_of
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.device_batch import DeviceBatch, Reads
from rembert_ray.engine.documents import WindowOptions, window_texts
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.precision import DTYPES, INT8, use_fast_layers, weights_dtype
from rembert_ray.engine.runner import Runner
from rembert_ray.models.rembert import RemBertForTokenClassification, RemBertModel
from rembert_ray.models.weight_map import BASE
from rembert_ray.tasks.embed import EmbedHead
from rembert_ray.tokenizers.rembert import RemBertTokenizer

REFERENCE = "float32"
SLOW_ON_CPU = ("float16", "float8")
N_TEXTS, N_DRIFT_TEXTS, N_DEMO_TEXTS = 96, 24, 300
N_SMOKE_TEXTS = 4
# Less than this, and something is broken: it is no precision any more.
LEAST_COSINE = 0.99
COLUMNS = (
    "precision",
    "hidden states: mean / max difference",
    "pooled cosine: mean / min",
    "same nearest text",
    "same labels",
    "faster than float32, best rounds",
    "by round: min / median / max",
)


class Reading:
    """A head that hands out every hidden state and, of a tagger, every label."""

    token_values = frozenset({"hidden", "label"})
    reads: Reads = "all"

    def __init__(self, classifier: nn.Module | None) -> None:
        self.classifier = classifier

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`hidden` float32 `[kept, hidden]` and, of a tagger, `label` int64 `[kept]`."""
        kept = hidden[batch.kept]
        found = {"hidden": kept.float()}
        return found if self.classifier is None else found | {"label": self.classifier(kept).argmax(-1)}


@dataclass(frozen=True)
class Reference:
    """What float32 makes of the texts: hidden states of all tokens, a vector for each text, labels if there are any."""

    hidden: NDArray[np.float32]
    vectors: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def read(model: Any, table: WindowTable, device: torch.device) -> Reference:
    """Run a model over all windows; vectors are of length 1."""
    head = Reading(model.head if isinstance(model, RemBertForTokenClassification) else None)
    result = Runner(model.encoder, head, device).run(table)
    if result.failures:
        raise SystemExit(f"windows failed: {result.failures}")
    hidden: Any = result.values["hidden"]
    vectors = np.add.reduceat(hidden, table.kept_splits[:-1], axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels: Any = result.values.get("label")
    return Reference(hidden, vectors, labels)


def nearest(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each text the other one with the largest cosine."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2.0)
    found: NDArray[np.int64] = cosines.argmax(1)
    return found


def drift(found: Reference, exact: Reference) -> list[str]:
    """The cells of the table that are about accuracy.

    Raises:
        SystemExit: the vectors are not those of this model.
    """
    error = np.abs(found.hidden - exact.hidden)
    cosines = (found.vectors.astype(np.float64) * exact.vectors).sum(1)
    if not cosines.min() >= LEAST_COSINE:
        raise SystemExit(f"a pooled cosine of {cosines.min():.4f} with float32: this is not the same model")
    same = (nearest(found.vectors) == nearest(exact.vectors)).mean()
    labels = ""
    if found.labels is not None and exact.labels is not None:
        labels = f"{(found.labels == exact.labels).mean():.2%}"
    cosine = f"{cosines.mean():.6f} / {cosines.min():.6f}"
    return [f"{error.mean():.1e} / {error.max():.1e}", cosine, f"{same:.1%}", labels]


def load(kind: type[Any], folder: Path, precision: str, device: torch.device, **options: Any) -> Any:
    """A model as an infer actor has it."""
    model = kind.from_pretrained(folder, dtype=weights_dtype(precision), device=device, **options)
    use_fast_layers(model, precision)
    return model


def demo_windows(n_texts: int) -> WindowTable:
    """Texts of corpus L as the demo's vocabulary cuts them."""
    tokenizer = RemBertTokenizer.from_pretrained(DEMO / "model")
    assert tokenizer.unk_token_id is not None
    encoding = tokenizer.encode_batch(real_lengths(n_texts), add_special_tokens=False)
    options = WindowOptions(512, overlap=0)
    return window_texts(
        encoding, tokenizer.template, options, keeps_special_tokens=True, unk_id=tokenizer.unk_token_id
    ).windows


def measure_demo(precisions: list[str], table: WindowTable, device: torch.device) -> None:
    """Drift of the demo's tagger."""
    exact = read(load(RemBertForTokenClassification, DEMO / "model", REFERENCE, device), table, device)
    print(f"\nDemo tagger (trained), {len(table):,} windows, {len(table.ids):,} tokens\n")
    models = ((name, load(RemBertForTokenClassification, DEMO / "model", name, device)) for name in precisions)
    print_table(COLUMNS[:5], ([name, *drift(read(model, table, device), exact)] for name, model in models))


def measure_full_width(
    precisions: list[str], table: WindowTable, n_drift: int, n_rounds: int, device: torch.device
) -> None:
    """Drift and speed of a model of RemBERT's width."""
    few = table.take(np.arange(min(n_drift, len(table))))
    contenders, cells = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = save_random(name, BASE)
        exact = read(load(RemBertModel, folder, REFERENCE, device, add_pooling_layer=False), few, device)
        for precision in precisions:
            model = load(RemBertModel, folder, precision, device, add_pooling_layer=False)
            cells[precision] = drift(read(model, few, device), exact)
            if device.type == "cuda" or precision not in SLOW_ON_CPU:
                runner = Runner(model.encoder, EmbedHead("mean", None), device)
                contenders[precision] = Contender(precision, partial(runner.run, table))
    take_turns(list(contenders.values()), n_rounds)
    print(f"\nRemBERT's width, {LAYERS} layers, random weights; drift of {len(few)} windows")
    print(f"speed on L, {len(table):,} windows, {len(table.ids):,} tokens, {n_rounds} rounds\n")
    for precision, contender in contenders.items():
        ours = contenders[REFERENCE]
        by_rounds = three(by_round(ours, contender), ".2f")
        cells[precision] += [f"{ratio(ours, contender):.2f} x", by_rounds]
    # The labels of a model without a head are nothing to show.
    columns = COLUMNS[:4] + COLUMNS[5:]
    rows = ([name, *cell[:3], *(cell[4:] or ["not timed", ""])] for name, cell in cells.items())
    print_table(columns, rows)


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", default=",".join(DTYPES), help="which to measure; float32 always is")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--texts", type=int, default=N_TEXTS, help=f"texts that speed is measured on ({N_TEXTS})")
    parser.add_argument("--smoke", action="store_true", help="a few texts and one round, to see that it works")
    arguments = parser.parse_args()
    arguments.precisions = arguments.precisions.split(",")
    if unknown := set(arguments.precisions) - DTYPES.keys():
        parser.error(f"unknown precision {', '.join(sorted(unknown))}; known: {', '.join(DTYPES)}")
    if REFERENCE not in arguments.precisions:
        arguments.precisions.insert(0, REFERENCE)
    if arguments.smoke:
        arguments.rounds, arguments.texts = 1, N_SMOKE_TEXTS
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        arguments.precisions = [word for word in arguments.precisions if word != INT8]
    n_demo, n_drift = (N_SMOKE_TEXTS, N_SMOKE_TEXTS) if arguments.smoke else (N_DEMO_TEXTS, N_DRIFT_TEXTS)
    print(describe_machine())
    print(f"device: {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}", flush=True)
    measure_demo(arguments.precisions, demo_windows(n_demo), device)
    table = windows_of(real_lengths(arguments.texts))
    measure_full_width(arguments.precisions, table, n_drift, arguments.rounds, device)


if __name__ == "__main__":
    main()
