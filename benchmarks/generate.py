"""`generate` against transformers: 64 prompts of real lengths, continued greedily by a random model of full width.

    python -m benchmarks.generate [--rounds 3] [--new-tokens 32] [--smoke]

Ours starts from ragged ids, as an actor of a job does; transformers gets its batches padded on the left, and making
them is not timed. Both must choose the same tokens. Random weights never end a text by themselves, so in the case
"stops" the stop ids are tokens that the model itself chooses at steps spread over the run; in the case "limit" every
row runs to the last step. It must not show a case that only suits ours: transformers runs all prompts as one batch and
in smaller batches sorted by length.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.checkpoints import LAYERS, save_random
from benchmarks.padded import PaddedBatch, count_tokens, pad_batches
from benchmarks.table import describe_machine, print_table, three
from benchmarks.texts import WINDOW_TOKENS, load_tokenizer, real_lengths
from benchmarks.turns import Contender, by_round, ratio, take_turns
from rembert_ray.engine.decoding import NO_TOKEN, Decoder
from rembert_ray.engine.documents import WindowOptions
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.rembert import RemBertForCausalLM
from rembert_ray.models.weight_map import CAUSAL_LM
from rembert_ray.tasks.generate import Generate, GenerateParameters

Ids = NDArray[np.int32]
DEVICE = torch.device("cpu")
OURS = "rembert-ray"
COLUMNS = ("", "tokens read", "steps", "seconds", "new tokens/s", "ours is faster by", "each round")
SMOKE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "input_embedding_size": 16,
    "output_embedding_size": 24,
    "initializer_range": 0.3,
}


def read_prompts(n_prompts: int, n_new: int) -> WindowTable:
    """Texts of corpus L as the task reads them: `[CLS]` and the text."""
    task = Generate(GenerateParameters(max_new_tokens=n_new))
    options = WindowOptions(WINDOW_TOKENS, overlap=0, long_documents="truncate")
    return task.encode({"prompt": real_lengths(n_prompts)}, load_tokenizer(), options).windows


def choose_stop_ids(ids: Ids) -> list[int]:
    """Tokens with which rows end at steps spread over the run, from what was chosen without any, `[rows, steps]`."""
    n_rows, n_steps = ids.shape
    stop_ids: list[int] = []
    for row, target in enumerate(np.random.default_rng(0).permutation(np.linspace(0, n_steps - 1, n_rows)).astype(int)):
        token = int(ids[row, target])
        # A token that many rows choose would end them all at once.
        if (ids == token).any(1).sum() <= max(1, n_rows // 16) and not np.isin(ids[row, :target], stop_ids).any():
            stop_ids.append(token)
    return stop_ids


def run_ours(model: RemBertForCausalLM, prompts: WindowTable, options: GenerationOptions) -> Callable[[], Ids]:
    """What an actor of a job runs; new ids `[rows, steps]`, `NO_TOKEN` after the last."""
    decoder = Decoder(model, options, 0, DEVICE)

    def run() -> Ids:
        result = decoder.run(prompts)
        if result.failures:
            raise SystemExit(f"not every prompt was continued: {result.failures}")
        return result.values["ids"].astype(np.int32, copy=False)

    return run


def run_transformers(model: Any, batches: list[PaddedBatch], options: GenerationOptions) -> Callable[[], Ids]:
    """`generate` over batches padded on the left; the same as `run_ours` gives."""
    stop_ids = list(options.eos_token_id) if isinstance(options.eos_token_id, tuple) else []
    how = {"do_sample": False, "max_new_tokens": options.max_new_tokens, "pad_token_id": 0}

    def run() -> Ids:
        found = np.full((sum(len(batch.windows) for batch in batches), options.max_new_tokens), NO_TOKEN, np.int32)
        for batch in batches:
            rows = model.generate(batch.ids, attention_mask=batch.mask, eos_token_id=stop_ids or None, **how)
            new = rows[:, batch.ids.shape[1] :].numpy()
            found[batch.windows, : new.shape[1]] = new
        ends = np.isin(found, stop_ids).argmax(1)
        is_after = np.arange(options.max_new_tokens) > ends[:, None]
        found[is_after & np.isin(found, stop_ids).any(1)[:, None]] = NO_TOKEN
        return found

    return run


def pad_left(batch: PaddedBatch) -> PaddedBatch:
    """The same rows with their padding in front."""
    n_padding = (batch.mask == 0).sum(1, keepdim=True)
    sources = (torch.arange(batch.ids.shape[1]) - n_padding) % batch.ids.shape[1]
    return replace(batch, ids=batch.ids.gather(1, sources), mask=batch.mask.gather(1, sources))


def measure(
    title: str, ours: Any, theirs: Any, prompts: WindowTable, stop_ids: list[int], a: argparse.Namespace
) -> None:
    """One case: contenders in turns, the same tokens, a table."""
    options = GenerationOptions(max_new_tokens=a.new_tokens, eos_token_id=tuple(stop_ids))
    contenders = [Contender(OURS, run_ours(ours, prompts, options))]
    sizes = [(len(prompts.ids), None)]
    for size in [int(size) for size in a.batches.split(",")]:
        batches = [pad_left(batch) for batch in pad_batches(prompts, size, is_sorted=size < len(prompts))]
        name = f"transformers, batches of {size}{', sorted' if len(batches) > 1 else ''}"
        contenders.append(Contender(name, run_transformers(theirs, batches, options)))
        sizes.append((count_tokens(batches), batches))
    take_turns(contenders, a.rounds)
    found = contenders[0].result
    n_new = (found != NO_TOKEN).sum(1)
    print(f"\n{title}: {len(stop_ids)} stop ids; new tokens of a row: {three(n_new, '.0f')}, {n_new.sum():,} in all\n")
    rows = []
    for contender, (n_read, batches) in zip(contenders, sizes, strict=True):
        if not np.array_equal(contender.result, found):
            n_other = int((contender.result != found).any(1).sum())
            raise SystemExit(f"{contender.name} chooses other tokens in {n_other} of {len(found)} rows")
        n_steps = sum(int(n_new[batch.windows].max()) for batch in batches) if batches else int(n_new.max())
        rates = three(n_new.sum() / np.array(contender.seconds), ",.0f")
        faster = f"{ratio(contender, contenders[0]):.2f} x"
        each = three(by_round(contender, contenders[0]), ".2f")
        rows.append([contender.name, f"{n_read:,}", str(n_steps), three(contender.seconds, ".2f"), rates, faster, each])
    print_table(COLUMNS, rows)


def load_models(n_layers: int, **shape: Any) -> tuple[RemBertForCausalLM, Any]:
    """Ours, prepacked as an actor has it, and that of transformers, with the same weights."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        save_random(folder, CAUSAL_LM, n_layers, is_decoder=True, **shape)
        theirs: Any = transformers.RemBertForCausalLM.from_pretrained(folder).eval()
        ours = RemBertForCausalLM.from_pretrained(folder)
    if not prepack_linears(ours):
        print("this torch has no oneDNN: nothing is prepacked")
    return ours, theirs


def parse_arguments() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"layers ({LAYERS})")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--prompts", type=int, default=64, help="prompts (64)")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens after each prompt at most (32)")
    parser.add_argument("--batches", default="64,32,16", help="batch sizes of transformers (64,32,16)")
    parser.add_argument("--case", choices=("stops", "limit"), help="only this one")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds, and no figure means anything")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.layers, arguments.rounds, arguments.prompts, arguments.new_tokens = 1, 1, 12, 6
        arguments.batches = "12,4"
    return arguments


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    ours, theirs = load_models(arguments.layers, **(SMOKE if arguments.smoke else {}))
    prompts = read_prompts(arguments.prompts, arguments.new_tokens)
    print(describe_machine())
    lengths = prompts.lengths
    print(f"{len(prompts)} prompts of corpus L, {three(lengths, '.0f')} tokens, {arguments.layers} layers", flush=True)
    unlimited = GenerationOptions(max_new_tokens=arguments.new_tokens, eos_token_id=())
    if arguments.case != "limit":
        stop_ids = choose_stop_ids(run_ours(ours, prompts, unlimited)())
        measure("stops", ours, theirs, prompts, stop_ids, arguments)
    if arguments.case != "stops":
        measure("limit", ours, theirs, prompts, [], arguments)


if __name__ == "__main__":
    main()
