"""Trains the demo's models beside the tagger, or gives them random weights where training would take too long.

    python demo/train_heads.py --task classify | generate | fill_mask | answer | choose

Run it only to change the demo: the models are in the repository. The vocabulary comes first: `small_vocabulary.py`,
and `generate` before `fill_mask`, which starts from it.
A few minutes for each model on one core. Prints the figures of the held-back sentences and writes the model in
Hugging Face's format (float16), with `accuracy.json` beside it. `answer` and `choose` are random: their answers only
show what a job writes. The others are real, and as good as 300,000 parameters can be, which is not
good; how good, `head_figures.py` measures.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from head_batches import Batch, Texts, causal_batches, language_batches, masked_batches
from head_figures import Figures, evaluate_classify, evaluate_fill_mask, evaluate_generate
from sentences import LANGUAGES
from torch.nn.functional import cross_entropy
from train import CLS, IGNORED, SEP, optimizer_for

from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.rembert import (
    RemBertForCausalLM,
    RemBertForMaskedLM,
    RemBertForMultipleChoice,
    RemBertForQuestionAnswering,
    RemBertForSequenceClassification,
)
from rembert_ray.tokenizers.rembert import RemBertTokenizer

FOLDER = Path(__file__).parent


def start_from_frequencies(model: Any, texts: Texts) -> None:
    """Let a language model know how frequent each piece is, which would else take its first hundreds of steps."""
    ids = texts.tokenizer.encode_batch([sentence.text for sentence in texts.train], add_special_tokens=False).ids
    counts = np.bincount([*ids, *[SEP] * len(texts.train)], minlength=texts.tokenizer.vocab_size)
    with torch.no_grad():
        model.head.decoder.bias.copy_(torch.from_numpy(np.log((counts + 1) / counts.sum())))


def train_steps(model: Any, batches: Iterator[Batch], rate: float, n_steps: int) -> None:
    """Cross-entropy over the labels that count; the head sees only their tokens."""
    optimizer, schedule = optimizer_for(model, rate, n_steps)
    started, losses = time.monotonic(), []
    model.train()
    for step in range(1, n_steps + 1):
        ids, labels = next(batches)
        hidden = model.encoder(ids, (ids != 0).long(), use_cache=False).last_hidden_state
        counted = labels != IGNORED
        rows = hidden[:, 0] if labels.dim() == 1 else hidden[counted]
        loss = cross_entropy(model.head(rows), labels[counted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 250 == 0:
            seconds = time.monotonic() - started
            print(f"step {step}/{n_steps}, loss {np.mean(losses[-250:]):.3f}, {seconds:.0f} s", flush=True)
    model.eval()


@dataclass(frozen=True)
class Recipe:
    """How the model of one task is made; without `batches` it stays random.

    sizes: what differs from the sizes that all have.
    start: a task whose trained weights this one starts from.
    """

    model: type
    sizes: dict[str, Any]
    batches: Callable[[Texts, np.random.Generator], Iterator[Batch]] | None = None
    evaluate: Callable[[Any, Texts], Figures] | None = None
    rate: float = 3e-3
    n_steps: int = 0
    start: str | None = None


LANGUAGE_LABELS = dict(enumerate(LANGUAGES))
# So wide a spread that the answers differ from row to row.
RANDOM = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "input_embedding_size": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
}
RECIPES = {
    "classify": Recipe(
        RemBertForSequenceClassification,
        {"id2label": LANGUAGE_LABELS},
        language_batches,
        evaluate_classify,
        n_steps=1000,
    ),
    # On its own this one was still guessing by frequency after as many steps, and looked at no neighbour.
    "fill_mask": Recipe(RemBertForMaskedLM, {}, masked_batches, evaluate_fill_mask, n_steps=3000, start="generate"),
    "generate": Recipe(RemBertForCausalLM, {"is_decoder": True}, causal_batches, evaluate_generate, n_steps=5000),
    "answer": Recipe(RemBertForQuestionAnswering, RANDOM),
    "choose": Recipe(RemBertForMultipleChoice, RANDOM),
}


def make_config(vocab_size: int, sizes: dict[str, Any]) -> RemBertConfig:
    """The sizes that all models share, and those that differ."""
    shared = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "input_embedding_size": 24,
        "output_embedding_size": 24,
        "intermediate_size": 192,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
    }
    return RemBertConfig(vocab_size=vocab_size, bos_token_id=CLS, eos_token_id=SEP, **{**shared, **sizes})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Trains the demo's models beside the tagger.")
    parser.add_argument("--task", choices=RECIPES, required=True)
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    arguments = parser.parse_args()
    recipe, folder = RECIPES[arguments.task], FOLDER / arguments.task
    torch.manual_seed(0)
    vocab_size = RemBertTokenizer.from_pretrained(str(folder)).vocab_size
    model = recipe.model(make_config(vocab_size, recipe.sizes))
    if recipe.batches is None or recipe.evaluate is None:
        model.half().save_pretrained(str(folder))
        return
    texts = Texts.read(FOLDER, arguments.task)
    if recipe.start is not None:
        first = RECIPES[recipe.start].model.from_pretrained(str(FOLDER / recipe.start))
        model.load_state_dict(first.state_dict())
    elif arguments.task == "generate":
        start_from_frequencies(model, texts)
    steps = recipe.n_steps if arguments.steps is None else arguments.steps
    train_steps(model, recipe.batches(texts, np.random.default_rng(1)), recipe.rate, steps)
    model.half().save_pretrained(str(folder))
    figures = {name: round(value, 4) for name, value in recipe.evaluate(model.float(), texts).items()}
    print(json.dumps(figures, indent=2))
    (folder / "accuracy.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
