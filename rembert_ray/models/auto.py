"""The model class for a head and the family that a checkpoint's `config.json` names, as Hugging Face's Auto classes."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from rembert_ray.models import weight_map
from rembert_ray.models.checkpoint import PretrainedModel
from rembert_ray.models.config import AutoConfig, EncoderConfig
from rembert_ray.storage.location import Place, as_location

# The file of a family in this folder and the first part of its class names, by `model_type`.
FAMILIES = {"rembert": ("rembert", "RemBert"), "roberta-prelayernorm": ("roberta_prelayernorm", "RobertaPreLayerNorm")}
CLASS_SUFFIXES = {
    weight_map.BASE: "Model",
    weight_map.CAUSAL_LM: "ForCausalLM",
    weight_map.MASKED_LM: "ForMaskedLM",
    weight_map.SEQUENCE_CLASSIFICATION: "ForSequenceClassification",
    weight_map.MULTIPLE_CHOICE: "ForMultipleChoice",
    weight_map.TOKEN_CLASSIFICATION: "ForTokenClassification",
    weight_map.QUESTION_ANSWERING: "ForQuestionAnswering",
}


def model_class(config: EncoderConfig, head: str) -> type[PretrainedModel]:
    """The class of a family with a head (one of `weight_map.HEADS`)."""
    file, name = FAMILIES[config.model_type]
    found: type[PretrainedModel] = getattr(import_module(f"rembert_ray.models.{file}"), f"{name}{CLASS_SUFFIXES[head]}")
    return found


class AutoModel:
    """The bare encoder of any family."""

    head_name: ClassVar[str] = weight_map.BASE

    @classmethod
    def from_pretrained(cls, location: Place, **options: Any) -> PretrainedModel:
        """Load a model; options and errors are those of `PretrainedModel.from_pretrained`."""
        folder = as_location(location)
        config = options.get("config") or AutoConfig.from_pretrained(folder)
        return model_class(config, cls.head_name).from_pretrained(folder, **options)

    @classmethod
    def from_config(cls, config: EncoderConfig, **options: Any) -> PretrainedModel:
        """A model with random weights."""
        return model_class(config, cls.head_name)(config, **options)


class AutoModelForCausalLM(AutoModel):
    """`ForCausalLM` of any family."""

    head_name = weight_map.CAUSAL_LM


class AutoModelForMaskedLM(AutoModel):
    """`ForMaskedLM` of any family."""

    head_name = weight_map.MASKED_LM


class AutoModelForSequenceClassification(AutoModel):
    """`ForSequenceClassification` of any family."""

    head_name = weight_map.SEQUENCE_CLASSIFICATION


class AutoModelForMultipleChoice(AutoModel):
    """`ForMultipleChoice` of any family."""

    head_name = weight_map.MULTIPLE_CHOICE


class AutoModelForTokenClassification(AutoModel):
    """`ForTokenClassification` of any family."""

    head_name = weight_map.TOKEN_CLASSIFICATION


class AutoModelForQuestionAnswering(AutoModel):
    """`ForQuestionAnswering` of any family."""

    head_name = weight_map.QUESTION_ANSWERING
