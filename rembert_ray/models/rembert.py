"""RemBERT's classes, weight-compatible with Hugging Face's (Chung et al. 2020, arXiv:2010.12821).

What they are is in `heads` and `encoder`; what makes them RemBERT is in `RemBertConfig` and `weight_map`.
"""

from __future__ import annotations

from rembert_ray.models import heads
from rembert_ray.models.config import RemBertConfig


class RemBertModel(heads.Model):
    """See `heads.Model`."""

    config_class = RemBertConfig


class RemBertForCausalLM(heads.ForCausalLM):
    """See `heads.ForCausalLM`."""

    config_class = RemBertConfig


class RemBertForMaskedLM(heads.ForMaskedLM):
    """See `heads.ForMaskedLM`."""

    config_class = RemBertConfig


class RemBertForSequenceClassification(heads.ForSequenceClassification):
    """See `heads.ForSequenceClassification`."""

    config_class = RemBertConfig


class RemBertForMultipleChoice(heads.ForMultipleChoice):
    """See `heads.ForMultipleChoice`."""

    config_class = RemBertConfig


class RemBertForTokenClassification(heads.ForTokenClassification):
    """See `heads.ForTokenClassification`."""

    config_class = RemBertConfig


class RemBertForQuestionAnswering(heads.ForQuestionAnswering):
    """See `heads.ForQuestionAnswering`."""

    config_class = RemBertConfig
