"""RoBERTa-PreLayerNorm's classes, weight-compatible with Hugging Face's (Ott et al. 2019, arXiv:1904.01038).

What they are is in `heads` and `encoder`; what sets them apart is in `RobertaPreLayerNormConfig` and `weight_map`.
"""

from __future__ import annotations

from rembert_ray.models import heads
from rembert_ray.models.config import RobertaPreLayerNormConfig


class RobertaPreLayerNormModel(heads.Model):
    """See `heads.Model`."""

    config_class = RobertaPreLayerNormConfig


class RobertaPreLayerNormForCausalLM(heads.ForCausalLM):
    """See `heads.ForCausalLM`."""

    config_class = RobertaPreLayerNormConfig
    caches_with_labels = False


class RobertaPreLayerNormForMaskedLM(heads.ForMaskedLM):
    """See `heads.ForMaskedLM`."""

    config_class = RobertaPreLayerNormConfig


class RobertaPreLayerNormForSequenceClassification(heads.ForSequenceClassification):
    """See `heads.ForSequenceClassification`."""

    config_class = RobertaPreLayerNormConfig


class RobertaPreLayerNormForMultipleChoice(heads.ForMultipleChoice):
    """See `heads.ForMultipleChoice`."""

    config_class = RobertaPreLayerNormConfig


class RobertaPreLayerNormForTokenClassification(heads.ForTokenClassification):
    """See `heads.ForTokenClassification`."""

    config_class = RobertaPreLayerNormConfig


class RobertaPreLayerNormForQuestionAnswering(heads.ForQuestionAnswering):
    """See `heads.ForQuestionAnswering`."""

    config_class = RobertaPreLayerNormConfig
