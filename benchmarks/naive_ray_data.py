"""The peer of `benchmarks.pipeline`: the same embeddings, written as Ray's page on batch inference shows it.

`read_parquet`, `map_batches` of a class that holds the tokenizer and the model of transformers, `write_parquet`;
batches of 32 rows as they arrive, padded to the longest. One actor with the threads of all cores.
It must not use anything of rembert_ray.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH_ROWS = 32
MAX_TOKENS = 512


class Embedder:
    """Mean-pooled vectors of length 1. `began_at` says when a row's batch began, to leave the start out."""

    def __init__(self, model: str, n_threads: int) -> None:
        import torch
        from transformers import AutoModel, PreTrainedTokenizerFast

        torch.set_num_threads(n_threads)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
        self.model = AutoModel.from_pretrained(model).eval()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Columns of a batch in, the same with `embedding` out."""
        import torch

        began = time.time()
        encoded = self.tokenizer(
            batch["text"].tolist(), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self.model(**encoded).last_hidden_state
            mask = encoded["attention_mask"][..., None]
            vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        rows = {"embedding": vectors.numpy(), "n_tokens": mask.sum((1, 2)).numpy()}
        return batch | rows | {"began_at": np.full(len(vectors), began)}


def run(corpus: Path, model: Path, output: Path, n_threads: int) -> None:
    """The whole job on the cluster that this process is connected to; the actor leaves a CPU to reading and writing."""
    import ray.data

    texts = ray.data.read_parquet(str(corpus))
    embedded = texts.map_batches(
        Embedder,
        fn_constructor_args=(str(model), n_threads),
        batch_size=BATCH_ROWS,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=max(1, n_threads - 1),
    )
    embedded.write_parquet(str(output))
