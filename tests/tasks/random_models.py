"""Random models of both families that read the first token (`classify`, `choose`).

Their results differ from text to text. It holds no test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch

from rembert_ray.models.auto import model_class
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.tokenizers.base import PretrainedTokenizer
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.roberta import RobertaTokenizer
from tests.conftest import TOKENIZER

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
REMBERT, ROBERTA = FAMILIES = ("rembert", "roberta-prelayernorm")


def save_random_rembert(folder: Path, head: str, texts: Sequence[str], *, positions: int = 512, **options) -> Path:
    """A RemBERT with the tiny SentencePiece vocabulary, which tells `texts` apart.

    `options` are further values of its configuration.
    """
    tokenizer = RemBertTokenizer(TOKENIZER)
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        input_embedding_size=16,
        output_embedding_size=16,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **SIZES,
        **options,
    )
    return _save(folder, config, head, tokenizer, texts)


def save_random_roberta(folder: Path, head: str, texts: Sequence[str], *, positions: int = 512, **options) -> Path:
    """A RoBERTa-PreLayerNorm with a byte-level BPE of 600 tokens, learned from `texts`, which it tells apart.

    `positions` are those of tokens: `max_position_embeddings` is two more.
    """
    tokenizer = learn_bpe(folder, texts)
    config = RobertaPreLayerNormConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions + 2, type_vocab_size=1, **SIZES, **options
    )
    return _save(folder, config, head, tokenizer, texts)


def _save(folder: Path, config, head: str, tokenizer: PretrainedTokenizer, texts: Sequence[str]) -> Path:
    torch.manual_seed(7)
    model = model_class(config, head)(config).eval()
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.7 if name.startswith("head.") else 0.3))
        # All first tokens of a random encoder are much alike: the head looks at how they differ.
        rows = [torch.tensor([tokenizer.encode(text)[:40]]) for text in texts[:100]]
        first = torch.stack([model.encoder(ids).last_hidden_state[0, 0] for ids in rows])
        dense = model.head.dense
        dense.weight *= 0.4 / (first.std(0).mean() * config.hidden_size**0.5)
        dense.bias.copy_(-dense.weight @ first.mean(0))
        model.head.classifier.bias.zero_()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


def learn_bpe(folder: Path, texts: Sequence[str], n_tokens: int = 600) -> RobertaTokenizer:
    """A byte-level BPE with `<mask>` as its last token; writes its two files into the folder."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_tokens - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(texts, trainer)
    learner.model.save(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["<mask>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    return RobertaTokenizer(folder / "vocab.json", folder / "merges.txt")
