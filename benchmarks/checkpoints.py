"""Random checkpoints of RemBERT's width with fewer layers, which rembert-ray and transformers both load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.texts import SEED, TOKENIZER, load_tokenizer
from rembert_ray.models.auto import model_class
from rembert_ray.models.config import RemBertConfig

LAYERS = 4


def save_random(folder: str | Path, head: str, n_layers: int = LAYERS, **config: Any) -> Path:
    """Write a random model with its configuration and vocabulary.

    Args:
        folder: where to; made if need be.
        head: of `models.weight_map.HEADS`.
        n_layers: encoder layers; RemBERT has 32.
        config: further fields of `RemBertConfig`; everything else is as in RemBERT (hidden 1152, 18 heads, 4608, input
            embedding 256, 250,300 pieces).
    """
    tokenizer = load_tokenizer()
    shape = RemBertConfig(vocab_size=len(tokenizer), num_hidden_layers=n_layers, **config)
    torch.manual_seed(SEED)
    model = model_class(shape, head)(shape)
    model.eval()
    model.save_pretrained(str(folder))
    shutil.copy(TOKENIZER / "sentencepiece.model", folder)
    return Path(folder)
