"""The tasks as transformers and sentence-transformers run them: from texts to labels, padded, in one process.

Pipelines are taken as they come; where 5.x has none (`answer`, `choose`), a loop does with the model what the pipeline
of 4.x or the model's page does. Each function returns the work as a callable. It must not time it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.task_in_process import WINDOWS
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast

MAX_ANSWER_TOKENS = 15

Run = Callable[[int], Any]
"""The work, with a batch size."""


def be_quiet() -> None:
    """No progress bars, and no word of what a pipeline would do better on a GPU."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def save_for_peers(folder: Path) -> Path:
    """The model again, with `tokenizer.json`: from a SentencePiece file alone transformers 5 adds no special tokens."""
    peers = folder / "peers"
    RemBertTokenizerFast.from_pretrained(folder).save_pretrained(peers)
    for name in ("config.json", "model.safetensors"):
        (peers / name).hardlink_to(folder / name)
    return peers


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of transformers, from `tokenizer.json`."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.model_max_length = WINDOWS.max_tokens
    return tokenizer


def sentence_transformer(folder: Path, texts: list[str]) -> Callable[[], Any]:
    """`encode` with its defaults (batches of 32, sorted by length): mean pooling, vectors of length 1."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder), max_seq_length=WINDOWS.max_tokens)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    return lambda: model.encode(texts)


def pipeline(name: str, folder: Path, texts: list[str]) -> Run:
    """A pipeline with the defaults of its task, over a list of texts."""
    import transformers

    models = {
        "text-classification": transformers.RemBertForSequenceClassification,
        "token-classification": transformers.RemBertForTokenClassification,
        "fill-mask": transformers.RemBertForMaskedLM,
    }
    model = models[name].from_pretrained(folder, dtype=torch.float32).eval()
    run: Any = transformers.pipeline(name, model=model, tokenizer=load_tokenizer(folder), device="cpu")
    return lambda batch_size: run(texts, batch_size=batch_size)


def answers(folder: Path, questions: list[str], contexts: list[str]) -> Run:
    """The best span (start, end) of each context, in characters: overlapping windows, batches of them in order."""
    import transformers

    model = transformers.RemBertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)

    @torch.inference_mode()
    def run(batch_size: int) -> list[tuple[int, int]]:
        encoded = tokenizer(
            questions, contexts, truncation="only_second", max_length=WINDOWS.max_tokens, stride=WINDOWS.overlap,
            return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
        best: list[tuple[float, int, int]] = [(-1.0, 0, 0)] * len(questions)
        for windows in _batches(range(len(encoded["input_ids"])), batch_size):
            output = model(**_pad(tokenizer, encoded, windows))
            for place, window in enumerate(windows):
                is_context = np.array([part == 1 for part in encoded.sequence_ids(window)])
                n_tokens = len(is_context)
                logits = (output.start_logits[place, :n_tokens], output.end_logits[place, :n_tokens])
                found = _best_span(logits, is_context, encoded["offset_mapping"][window])
                row = encoded["overflow_to_sample_mapping"][window]
                best[row] = max(best[row], found, key=lambda span: span[0])
        # A token of the `tokenizers` library takes the blank before it along.
        texts = (context[start:end] for context, (_, start, end) in zip(contexts, best, strict=True))
        return [(end - len(text.lstrip()), end) for text, (_, _, end) in zip(texts, best, strict=True)]

    return run


def choices(folder: Path, prompts: list[str], options: list[list[str]]) -> Run:
    """The index of the best of each row's options, equally many in every row."""
    import transformers

    model = transformers.RemBertForMultipleChoice.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(folder)

    @torch.inference_mode()
    def run(batch_size: int) -> list[int]:
        found: list[int] = []
        for rows in _batches(range(len(prompts)), batch_size):
            firsts = [prompts[row] for row in rows for _ in options[row]]
            seconds = [option for row in rows for option in options[row]]
            encoded = tokenizer(firsts, seconds, padding=True, return_token_type_ids=True, return_tensors="pt")
            logits = model(**{name: ids.view(len(rows), -1, ids.shape[1]) for name, ids in encoded.items()}).logits
            found += logits.argmax(-1).tolist()
        return found

    return run


def _batches(items: range, size: int) -> Iterator[range]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _pad(tokenizer: Any, encoded: Any, windows: Sequence[int]) -> Any:
    names = ("input_ids", "token_type_ids", "attention_mask")
    return tokenizer.pad({name: [encoded[name][window] for window in windows] for name in names}, return_tensors="pt")


def _best_span(
    logits: tuple[torch.Tensor, torch.Tensor], is_context: NDArray[np.bool_], offsets: list[tuple[int, int]]
) -> tuple[float, int, int]:
    """Score, first and last character, as the pipeline of 4.x: no other token counts but the opening one."""
    allowed = is_context.copy()
    allowed[0] = True
    start, end = (part.masked_fill(~torch.from_numpy(allowed), -10_000.0).softmax(-1).numpy() for part in logits)
    start[0] = end[0] = 0.0
    scores = np.tril(np.triu(np.outer(start, end)), MAX_ANSWER_TOKENS - 1)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[first, last]), offsets[first][0], offsets[last][1]
