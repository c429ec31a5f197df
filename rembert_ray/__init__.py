"""rembert-ray: batch inference with multilingual encoders on Ray, one Parquet object out for each shard in.

Models and tokenizers are importable from here under Hugging Face's names. They are loaded on first use, so that
`import rembert_ray` costs nothing: planning needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rembert_ray.models.config import RemBertConfig
    from rembert_ray.models.rembert import RemBertForTokenClassification, RemBertModel
    from rembert_ray.tokenizers.rembert import RemBertTokenizer

__version__ = "0.1.0"

_HOMES = {
    "RemBertConfig": "rembert_ray.models.config",
    "RemBertModel": "rembert_ray.models.rembert",
    "RemBertForTokenClassification": "rembert_ray.models.rembert",
    "RemBertTokenizer": "rembert_ray.tokenizers.rembert",
}

__all__ = ["RemBertConfig", "RemBertForTokenClassification", "RemBertModel", "RemBertTokenizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
