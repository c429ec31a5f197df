"""Random masked language models of both families, saved with a tokenizer, loud enough that every mask gets other fills.

It holds no test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from rembert_ray.models.auto import model_class
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.weight_map import MASKED_LM
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from tests.conftest import TOKENIZER
from tests.tasks.random_models import SIZES, learn_bpe


def save_rembert(folder: Path, texts: Sequence[str], *, positions: int = 512) -> Path:
    """With the tiny SentencePiece vocabulary; it tells masks in `texts` apart."""
    tokenizer = RemBertTokenizer(TOKENIZER)
    widths = {"input_embedding_size": 16, "output_embedding_size": 16}
    config = RemBertConfig(vocab_size=len(tokenizer), max_position_embeddings=positions, **widths, **SIZES)
    return _save(folder, config, tokenizer, texts)


def save_roberta(folder: Path, texts: Sequence[str]) -> Path:
    """With a byte-level BPE of 600 tokens, learned from `texts`; it tells masks in them apart."""
    tokenizer = learn_bpe(folder, texts)
    config = RobertaPreLayerNormConfig(
        vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, **SIZES
    )
    return _save(folder, config, tokenizer, texts)


def _save(folder: Path, config, tokenizer, texts: Sequence[str]) -> Path:
    torch.manual_seed(7)
    model = model_class(config, MASKED_LM)(config).eval()
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.7 if name.startswith("head.") else 0.3))
        # All masks of a random encoder are much alike: the head looks at how they differ.
        masks = torch.stack([model.encoder(ids).last_hidden_state[0, 2] for ids in _mask_third(tokenizer, texts)])
        dense = model.head.dense
        dense.weight *= 0.7 / (masks.std(0).mean() * config.hidden_size**0.5)
        dense.bias.copy_(-dense.weight @ masks.mean(0))
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


def _mask_third(tokenizer, texts: Sequence[str]) -> Iterator[torch.Tensor]:
    """Ids `[1, at most 24]` of each text with a mask in the third place."""
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text)[:24]])
        ids[0, 2] = tokenizer.mask_token_id
        yield ids
