"""rembert-ray: batch inference with multilingual encoders on Ray, one Parquet object out for each shard in.

Models and tokenizers are importable from here under Hugging Face's names. They are loaded on first use, so that
`import rembert_ray` costs nothing: planning needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rembert_ray.models.auto import AutoModel as AutoModel
    from rembert_ray.models.auto import AutoModelForCausalLM as AutoModelForCausalLM
    from rembert_ray.models.auto import AutoModelForMaskedLM as AutoModelForMaskedLM
    from rembert_ray.models.auto import AutoModelForMultipleChoice as AutoModelForMultipleChoice
    from rembert_ray.models.auto import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
    from rembert_ray.models.auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from rembert_ray.models.auto import AutoModelForTokenClassification as AutoModelForTokenClassification
    from rembert_ray.models.config import AutoConfig as AutoConfig
    from rembert_ray.models.config import RemBertConfig as RemBertConfig
    from rembert_ray.models.config import RobertaPreLayerNormConfig as RobertaPreLayerNormConfig
    from rembert_ray.models.rembert import RemBertForCausalLM as RemBertForCausalLM
    from rembert_ray.models.rembert import RemBertForMaskedLM as RemBertForMaskedLM
    from rembert_ray.models.rembert import RemBertForMultipleChoice as RemBertForMultipleChoice
    from rembert_ray.models.rembert import RemBertForQuestionAnswering as RemBertForQuestionAnswering
    from rembert_ray.models.rembert import RemBertForSequenceClassification as RemBertForSequenceClassification
    from rembert_ray.models.rembert import RemBertForTokenClassification as RemBertForTokenClassification
    from rembert_ray.models.rembert import RemBertModel as RemBertModel
    from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormForCausalLM as RobertaPreLayerNormForCausalLM
    from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormForMaskedLM as RobertaPreLayerNormForMaskedLM
    from rembert_ray.models.roberta_prelayernorm import (
        RobertaPreLayerNormForMultipleChoice as RobertaPreLayerNormForMultipleChoice,
    )
    from rembert_ray.models.roberta_prelayernorm import (
        RobertaPreLayerNormForQuestionAnswering as RobertaPreLayerNormForQuestionAnswering,
    )
    from rembert_ray.models.roberta_prelayernorm import (
        RobertaPreLayerNormForSequenceClassification as RobertaPreLayerNormForSequenceClassification,
    )
    from rembert_ray.models.roberta_prelayernorm import (
        RobertaPreLayerNormForTokenClassification as RobertaPreLayerNormForTokenClassification,
    )
    from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormModel as RobertaPreLayerNormModel
    from rembert_ray.tokenizers.auto import AutoTokenizer as AutoTokenizer
    from rembert_ray.tokenizers.rembert import RemBertTokenizer as RemBertTokenizer
    from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast as RemBertTokenizerFast
    from rembert_ray.tokenizers.roberta import RobertaTokenizer as RobertaTokenizer
    from rembert_ray.tokenizers.roberta import RobertaTokenizerFast as RobertaTokenizerFast

__version__ = "0.1.0"

_HEADS = (
    *("ForCausalLM", "ForMaskedLM", "ForMultipleChoice", "ForQuestionAnswering"),
    *("ForSequenceClassification", "ForTokenClassification"),
)
_HOMES = {
    "AutoConfig": "models.config",
    "RemBertConfig": "models.config",
    "RobertaPreLayerNormConfig": "models.config",
    **{f"AutoModel{head}": "models.auto" for head in ("", *_HEADS)},
    **{f"RemBert{head}": "models.rembert" for head in ("Model", *_HEADS)},
    **{f"RobertaPreLayerNorm{head}": "models.roberta_prelayernorm" for head in ("Model", *_HEADS)},
    "AutoTokenizer": "tokenizers.auto",
    "RemBertTokenizer": "tokenizers.rembert",
    "RemBertTokenizerFast": "tokenizers.rembert_fast",
    "RobertaTokenizer": "tokenizers.roberta",
    "RobertaTokenizerFast": "tokenizers.roberta",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
