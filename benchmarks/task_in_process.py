"""A task with its model in one process, and the texts that it and its peers read alike.

It must not know the peers, nor time anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.texts import CORPORA, DEMO, SEED, TOKENIZER, load_tokenizer
from rembert_ray.engine.documents import Decodable, WindowOptions
from rembert_ray.engine.precision import use_fast_layers
from rembert_ray.models.config import AutoConfig
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import find_task
from rembert_ray.tokenizers.auto import AutoTokenizer
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast

WINDOWS = WindowOptions(max_tokens=512, overlap=64)
SHARD_TEXTS = 2000
RUN_TEXTS = 32

Inputs = Mapping[str, list[Any]]


class TaskInProcess:
    """A task with its model, as the stages of a job hold them."""

    def __init__(self, folder: Path, name: str, parameters: dict[str, Any]) -> None:
        kind, location = find_task(name), locate(str(folder))
        self.task = kind(kind.Parameters.model_validate(parameters))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.config = AutoConfig.from_pretrained(str(folder))
        self.task.take_tokenizer(location, self.tokenizer)
        self.model = self.task.load_model(location, self.config, torch.float32, torch.device("cpu"))
        use_fast_layers(self.model, "float32")
        self.engine = self.task.engine(self.model, torch.device("cpu"), None)

    def run(self, inputs: Inputs) -> dict[str, pa.Array]:
        """Texts to columns."""
        documents = self.task.encode(inputs, self.tokenizer, WINDOWS)
        windows = documents.windows
        result = self.engine.run(windows)
        if documents.errors or result.failures:
            raise SystemExit(f"not every row was computed: {documents.errors or result.failures}")
        rows = Decodable(
            inputs=inputs,
            n_tokens=documents.n_tokens,
            truncated=documents.truncated,
            n_windows=documents.n_windows,
            n_kept=np.diff(windows.kept_splits),
            values=result.values,
            offsets=documents.offsets,
            is_unknown=documents.is_unknown,
            extras=documents.extras,
        )
        return self.task.decode(rows, self.config)


def read_texts(corpus: str, n_texts: int) -> Inputs:
    """Distinct texts of one window each. Of L, runs of neighbours in length, see `benchmarks.engine.take_sample`."""
    pool = list(dict.fromkeys(CORPORA[corpus](SHARD_TEXTS if corpus == "L" else 8 * n_texts)))
    texts, lengths = _readable_alike(pool)
    if corpus == "L":
        n_runs, n_wanted = len(texts) // RUN_TEXTS, max(1, n_texts // RUN_TEXTS)
        first = ((np.arange(n_wanted) + 0.25) * n_runs / n_wanted).astype(np.int64) * RUN_TEXTS
        by_length = np.argsort(-np.array(lengths), kind="stable")
        chosen = by_length[(first[:, None] + np.arange(RUN_TEXTS)).ravel()]
        texts = [texts[index] for index in np.random.default_rng(SEED).permutation(chosen)]
    return {"text": texts[:n_texts]}


def mask_words(inputs: Inputs) -> Inputs:
    """Texts with a mask in place of the word in the middle, or behind those that have one word."""
    masked = []
    for text in inputs["text"]:
        words = text.split(" ")
        middle = len(words) // 2
        masked.append(" ".join([*words[:middle], "[MASK]", *words[middle + 1 :]]) if middle else f"{text} [MASK]")
    return {"text": masked}


def read_pairs(task: str, n_rows: int) -> Inputs:
    """Rows of the demo's examples of `answer` or `choose`."""
    path = {"answer": "corpus_answer/xquad_questions", "choose": "corpus_choose/xcopa_validation"}[task]
    names = find_task(task).input_forms[0]
    rows = pq.read_table(DEMO / f"{path}.parquet", columns=list(names)).to_pylist()
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    alike = set(_readable_alike([part for row in rows for value in row.values() for part in _parts(value)])[0])
    good = [rows[i] for i in order if all(part in alike for value in rows[i].values() for part in _parts(value))]
    return {name: [row[name] for row in good[:n_rows]] for name in names}


def _parts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _readable_alike(texts: list[str]) -> tuple[list[str], list[int]]:
    """Texts that SentencePiece and the `tokenizers` library cut alike and that fit a window; their lengths."""
    ours = load_tokenizer().encode_batch(texts, add_special_tokens=False)
    theirs = RemBertTokenizerFast.from_pretrained(TOKENIZER).encode_batch(texts, add_special_tokens=False)
    found, lengths = [], []
    for row, text in enumerate(texts):
        ids, other = (part.ids[part.row_splits[row] : part.row_splits[row + 1]] for part in (ours, theirs))
        if np.array_equal(ids, other) and len(ids) <= WINDOWS.max_tokens - 2:
            found.append(text)
            lengths.append(len(ids))
    return found, lengths
