"""BERT as a family of its own: the data that sets it apart, and the classes, named as in Hugging Face.

In the package the first class belongs into `rembert_ray/models/config.py`, the second into a file beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rembert_ray.models import heads
from rembert_ray.models.config import EncoderConfig


@dataclass(kw_only=True)
class BertConfig(EncoderConfig):
    """BERT (Devlin et al. 2018, arXiv:1810.04805); defaults of bert-base-uncased."""

    model_type: ClassVar[str] = "bert"
    base_model_prefix: ClassVar[str] = "bert"
    norm_first: ClassVar[bool] = False
    positions_skip_padding: ClassVar[bool] = False
    has_embedding_projection: ClassVar[bool] = False
    pooler_is_in_sequence_head: ClassVar[bool] = True

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


class BertModel(heads.Model):
    """See `heads.Model`."""

    config_class = BertConfig
