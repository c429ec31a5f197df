"""A whole encoder on one GPU, in bfloat16 and float8, against transformers and against the machine.

    python -m benchmarks.gpu                       # 32 layers, corpora L and U; an H200's 989 TFLOP/s are the roof
    python -m benchmarks.gpu --peak-tflops 312     # of another GPU

MFU is of real tokens: useful additions and multiplications over the peak of dense bfloat16 (PaLM, arXiv:2204.02311).
Padding of the peers and float8's double rate count for nothing. Every contender pools by the mean and brings vectors to
the host; cosines with ours in bfloat16 are checked. The peers' batches are padded, and on the GPU, before the clock
starts.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.checkpoints import save_random
from benchmarks.padded import Vectors, pad_batches
from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import CORPORA, windows_of
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.flops import count_flops
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.precision import use_fast_layers
from rembert_ray.engine.runner import Runner
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.models.weight_map import BASE
from rembert_ray.tasks.embed import EmbedHead

LAYERS = 32
N_TEXTS = {"L": 20_000, "U": 3_000}
PEAK_TFLOPS = 989.0
# Name, windows in a batch, whether sorted: what many do, and what a careful user gets.
PEERS = (("arrival order", 64, False), ("sorted", 128, True), ("sorted", 512, True))
COLUMNS = ("contender", "useful tokens/s: min / median / max", "MFU", "ours takes 1", "round by round", "least cosine")
LEAST_COSINE = 0.995


def ours(encoder: Encoder, table: WindowTable, device: torch.device) -> Callable[[], Vectors]:
    """A job's runner over the table."""
    runner = Runner(encoder, EmbedHead("mean", None), device)
    return lambda: runner.run(table).values["vector"].astype(np.float32)


def transformers_runs(model: Any, table: WindowTable, device: torch.device, size: int, *, is_sorted: bool) -> Any:
    """Padded batches of one size; vectors stay on the GPU until all are computed."""
    batches = [(b.windows, b.ids.to(device), b.mask.to(device)) for b in pad_batches(table, size, is_sorted=is_sorted)]

    def run() -> Vectors:
        sums = []
        for _, ids, mask in batches:
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            sums.append((hidden * mask[..., None]).sum(1).float())
        vectors = np.empty((len(table), sums[0].shape[1]), np.float32)
        vectors[np.concatenate([windows for windows, _, _ in batches])] = torch.cat(sums).cpu().numpy()
        return vectors

    return run


def load(n_layers: int, device: torch.device) -> tuple[dict[str, Encoder], Any]:
    """The same random weights: ours in each precision, and those of transformers, in bfloat16."""
    import transformers

    with tempfile.TemporaryDirectory(prefix="rembert-ray-gpu-") as name:
        folder = save_random(name, BASE, n_layers)
        options: Any = {"dtype": torch.bfloat16}
        theirs: Any = transformers.RemBertModel.from_pretrained(folder, add_pooling_layer=False, **options)
        plain = RemBertModel.from_pretrained(folder, add_pooling_layer=False, device=device, **options).encoder.eval()
    encoders = {}
    for precision in ("bfloat16", "float8"):
        encoders[precision] = copy.deepcopy(plain)
        use_fast_layers(encoders[precision], precision)
    return encoders, theirs.to(device).eval()


def least_cosine(vectors: Vectors, expected: Vectors) -> float:
    """Over all windows."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((vectors * expected).sum(1) / norms).min())


def measure(table: WindowTable, encoders: dict[str, Encoder], theirs: Any, arguments: argparse.Namespace) -> None:
    """Run all contenders on a corpus and print their table."""
    device, flops = torch.device(arguments.device), count_flops(table.lengths, encoders["bfloat16"].config)
    contenders = [Contender(f"ours, {name}", ours(encoder, table, device)) for name, encoder in encoders.items()]
    for order, size, is_sorted in PEERS:
        run = transformers_runs(theirs, table, device, size, is_sorted=is_sorted)
        contenders.append(Contender(f"transformers, bfloat16, batch {size}, {order}", run))
    take_turns(contenders, arguments.rounds)
    first, rows = contenders[0], []
    for one in contenders:
        cosine = least_cosine(one.result, first.result)
        if not cosine >= LEAST_COSINE:
            raise SystemExit(f"{one.name}: a cosine of {cosine:.4f} with ours: not the same computation")
        mfu = flops / min(one.seconds) / 1e12 / arguments.peak_tflops
        rates = three([len(table.ids) / seconds for seconds in one.seconds], ",.0f")
        rows.append(
            [
                one.name,
                rates,
                f"{mfu:.1%}",
                f"{ratio(one, first):.2f}",
                three(by_round(one, first), ".2f"),
                f"{cosine:.5f}",
            ]
        )
    print_table(COLUMNS, rows)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"encoder layers ({LAYERS})")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--peak-tflops", type=float, default=PEAK_TFLOPS, help=f"dense bfloat16 ({PEAK_TFLOPS:.0f})")
    parser.add_argument("--smoke", action="store_true", help="one layer and few texts, on CPU: to see that it runs")
    arguments = parser.parse_args()
    arguments.device, n_texts = "cuda", N_TEXTS
    if arguments.smoke:
        arguments.device, arguments.layers, arguments.rounds, n_texts = "cpu", 1, 1, {"L": 6, "U": 2}
    elif not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU, and there is none; --smoke runs it on CPU")
    encoders, theirs = load(arguments.layers, torch.device(arguments.device))
    name = "CPU" if arguments.smoke else torch.cuda.get_device_name()
    print(f"{name}; {describe_machine()}")
    for corpus, n in n_texts.items():
        table = windows_of(CORPORA[corpus](n))
        print(f"\nCorpus {corpus}: {len(table):,} windows, {len(table.ids):,} tokens, {arguments.layers} layers\n")
        measure(table, encoders, theirs, arguments)


if __name__ == "__main__":
    main()
