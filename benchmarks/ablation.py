"""What each choice of the engine is worth: the same work with one of them left out, for pooled and for first tokens.

    python -m benchmarks.ablation

RemBERT's width, random weights, float32, corpus L. Every contender gives the same vectors, or the script stops.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import SEED, real_lengths, windows_of
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.budget import CPU_BATCH_TOKENS
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.runner import Encoder as AnyEncoder
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.tasks.embed import EmbedHead

CPU = torch.device("cpu")
COLUMNS = ("contender", "tokens/s: min / median / max", "time, ours is 1", "round by round: min / median / max")
TOLERANCE = 1e-4


class FirstOfAll(EmbedHead):
    """The first token of each window after a last layer that was computed for all tokens."""

    def __init__(self) -> None:
        super().__init__("cls", None)
        self.reads = "all"

    def reduce(self, hidden, batch):
        """See `EmbedHead.reduce`."""
        return super().reduce(batch.select(hidden, "first"), batch)


def contend(name: str, encoder: AnyEncoder, head: EmbedHead, table: WindowTable, batch_tokens: int) -> Contender:
    """One runner over the whole table."""
    runner = Runner(encoder, head, CPU, batch_tokens)

    def run() -> NDArray[np.float32]:
        vectors = runner.run(table).values["vector"]
        return vectors / table.lengths[:, None] if head.pooling == "mean" else vectors

    return Contender(name, run)


def make_encoders(n_layers: int) -> tuple[Encoder, Encoder]:
    """The same random encoder, plain and prepacked."""
    torch.manual_seed(SEED)
    plain = Encoder(RemBertConfig(num_hidden_layers=n_layers, vocab_size=250_300)).eval()
    fast = copy.deepcopy(plain)
    if not prepack_linears(fast):
        raise SystemExit("this torch has no oneDNN: nothing to leave out")
    return plain, fast


def groups(n_layers: int, table: WindowTable) -> list[list[Contender]]:
    """Contenders that do the same, ours first."""
    plain, fast = make_encoders(n_layers)

    def of(name: str, encoder: Encoder, head: EmbedHead, batch_tokens: int = CPU_BATCH_TOKENS) -> Contender:
        return contend(name, encoder, head, table, batch_tokens)

    mean, first = EmbedHead("mean", None), EmbedHead("cls", None)
    return [
        [
            of("all tokens pooled, as it is", fast, mean),
            of("weights not prepacked, GELU and sums on their own", plain, mean),
            of("each window in a batch of its own", fast, mean, 1),
        ],
        [
            of("first tokens, as it is", fast, first),
            of("last layer computed for all tokens", fast, FirstOfAll()),
        ],
    ]


def check(contenders: list[Contender]) -> None:
    """Stop where two gave other vectors."""
    for contender in contenders[1:]:
        worst = float(np.abs(contender.result - contenders[0].result).max())
        if not worst <= TOLERANCE:
            raise SystemExit(f"{contender.name}: vectors differ by {worst:.1e} from those of {contenders[0].name}")


def report(contenders: list[Contender], n_tokens: int) -> list[list[str]]:
    """Rows of the table."""
    ours = contenders[0]
    rates: Callable[[Contender], str] = lambda one: three([n_tokens / s for s in one.seconds], ",.0f")  # noqa: E731
    return [[one.name, rates(one), f"{ratio(one, ours):.2f}", three(by_round(one, ours), ".2f")] for one in contenders]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="encoder layers (4)")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each contender (4)")
    parser.add_argument("--texts", type=int, default=300, help="texts of corpus L (300)")
    parser.add_argument("--smoke", action="store_true", help="as little as possible, to see that it runs")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.rounds, arguments.texts = 1, 1, 8
    table = windows_of(real_lengths(arguments.texts))
    found = groups(arguments.layers, table)
    print(describe_machine())
    print(f"corpus L: {len(table):,} windows, {len(table.ids):,} tokens, {arguments.layers} layers\n", flush=True)
    rows = []
    for contenders in found:
        take_turns(contenders, arguments.rounds)
        check(contenders)
        rows += report(contenders, len(table.ids))
    print_table(COLUMNS, rows)


if __name__ == "__main__":
    main()
