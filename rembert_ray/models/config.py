"""Model configurations, read from and written to Hugging Face's `config.json`. No torch: `plan` reads them too.

What differs between the two families is data here: sizes and defaults as fields, structure as class constants.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.config_faults import config_faults
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.json_file import read_json_object
from rembert_ray.storage.location import Location, Place, as_location
from rembert_ray.storage.put import put_replacing

CONFIG_FILE = "config.json"
MAX_LABELS = 1_000_000
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class NumLabels:
    """`num_labels`: the size of `id2label`; setting it to another number renames the labels LABEL_0, LABEL_1, ..."""

    def __get__(self, config: EncoderConfig | None, owner: type) -> int | None:
        return None if config is None else len(config.id2label)

    def __set__(self, config: EncoderConfig, n_labels: int | None) -> None:
        if n_labels is not None and n_labels != len(config.id2label):
            if type(n_labels) is not int or not 0 <= n_labels <= MAX_LABELS:
                raise ValueError(f"num_labels is {n_labels!r}, not a whole number from 0 to {MAX_LABELS:,}")
            config.id2label = {index: f"LABEL_{index}" for index in range(n_labels)}
            config.label2id = {label: index for index, label in config.id2label.items()}


@dataclass(kw_only=True)
class EncoderConfig:
    """What both families have; names are those of Hugging Face, absent keys take the documented defaults.

    Keys of a `config.json` that are not fields here are kept in `extra` and written back unchanged.
    """

    model_type: ClassVar[str]
    base_model_prefix: ClassVar[str]
    """First part of the names of the encoder's tensors in the checkpoint of a model with a head."""
    norm_first: ClassVar[bool]
    """Whether layers normalize before attention and feed-forward, with one more norm after the last layer."""
    positions_skip_padding: ClassVar[bool]
    """Whether positions count the ids that are not padding, from `pad_token_id + 1` on; else all tokens from 0 on."""
    has_embedding_projection: ClassVar[bool]
    """Whether a linear layer leads from the embeddings to the first layer."""
    pooler_is_in_sequence_head: ClassVar[bool]
    """Whether a sequence classifier reads the encoder's pooler, or has a dense layer of its own."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    use_cache: bool = True
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    problem_type: str | None = None
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    label2id: dict[str, int] = field(default_factory=dict)
    num_labels: NumLabels = NumLabels()
    architectures: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {int(index): str(label) for index, label in self.id2label.items()}
        if len(names) < len(self.id2label):
            raise ValueError("id2label has two names for one id")
        self.id2label = names
        if not self.label2id:
            self.label2id = {label: index for index, label in self.id2label.items()}
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise ValueError(
                f"problem_type is {reprlib.repr(self.problem_type)}, not one of {', '.join(PROBLEM_TYPES)}"
            )

    @property
    def ties_decoder(self) -> bool:
        """Whether the language modelling head shares the matrix of the word embeddings."""
        return self.tie_word_embeddings

    @property
    def labels(self) -> list[str]:
        """Label names by id; an id without a name reads `LABEL_<id>`, as in Hugging Face."""
        return [self.id2label.get(index, f"LABEL_{index}") for index in range(len(self.id2label))]

    @property
    def embedding_size(self) -> int:
        """Width of word, segment and position vectors."""
        return self.hidden_size

    @property
    def output_size(self) -> int:
        """Width at which the language modelling head meets the vocabulary."""
        return self.hidden_size

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier."""
        return self.hidden_dropout_prob

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest sequence that has a position for each of them, special tokens included."""
        first = self.pad_token_id + 1 if self.positions_skip_padding and self.pad_token_id is not None else 0
        return self.max_position_embeddings - first

    def faults(self, where: str) -> list[Fault]:
        """Everything in this configuration that no model can be built from."""
        return config_faults(self, where)

    @classmethod
    def from_dict(cls, values: dict[str, Any], **overrides: Any) -> Self:
        """Build from the mapping of a `config.json`; `overrides` win over it."""
        values = {**values, **overrides}
        if overrides.keys() & {"id2label", "num_labels"}:
            values["label2id"] = overrides.get("label2id")
        if values.get("id2label") is not None and "num_labels" not in overrides:
            values["num_labels"] = None
        known = {f.name for f in fields(cls)} - {"extra"}
        # A null is an answer only where the documentation allows one.
        given = {key: value for key, value in values.items() if key in known and value is not None}
        given |= {key: None for key in ("pad_token_id", "bos_token_id", "eos_token_id") if values.get(key, 0) is None}
        extra = {key: value for key, value in values.items() if key not in known | {"model_type"}}
        return cls(**given, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The mapping that `config.json` holds: fields, then unknown keys as they were read."""
        values = {key: value for key, value in asdict(self).items() if key not in ("extra", "num_labels")}
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return {"model_type": self.model_type, **values, **self.extra}

    @classmethod
    def from_pretrained(cls, location: Place, **overrides: Any) -> Self:
        """Read `config.json` of a checkpoint folder or fsspec URL; `overrides` replace single values.

        Raises:
            UnusableError: no `config.json`, no JSON object in it, another model type, or impossible sizes.
            TypeError: an override that is no field.
        """
        folder = as_location(location)
        values = read_config(folder)
        where = str(folder.child(CONFIG_FILE))
        if strange := sorted(overrides.keys() - {f.name for f in fields(cls)}):
            raise TypeError(f"{cls.__name__} has no {', '.join(strange)}")
        if values.get("model_type") != cls.model_type:
            raise UnusableError(
                Fault(where, f"model_type is {reprlib.repr(values.get('model_type'))}", f"expected {cls.model_type!r}")
            )
        try:
            config = cls.from_dict(values, **overrides)
        except (TypeError, ValueError, AttributeError) as error:
            what = f"cannot be read as a {cls.__name__}: {str(error)[:200]}"
            raise UnusableError(Fault(where, what)) from error
        if faults := config.faults(where):
            raise UnusableError(faults)
        return config

    def save_pretrained(self, location: Place) -> None:
        """Write `config.json` into a folder or fsspec URL. Raises `StorageError`."""
        folder = as_location(location)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        put_replacing(folder.child(CONFIG_FILE), text.encode())


@dataclass(kw_only=True)
class RemBertConfig(EncoderConfig):
    """RemBERT (Chung et al. 2020, "Rethinking embedding coupling", arXiv:2010.12821); defaults of google/rembert.

    Input vectors are narrow (`input_embedding_size`) and mapped to `hidden_size`; the language modelling head meets
    the vocabulary at `output_embedding_size`, with weights of its own.
    """

    model_type: ClassVar[str] = "rembert"
    base_model_prefix: ClassVar[str] = "rembert"
    norm_first: ClassVar[bool] = False
    positions_skip_padding: ClassVar[bool] = False
    has_embedding_projection: ClassVar[bool] = True
    pooler_is_in_sequence_head: ClassVar[bool] = True

    vocab_size: int = 250300
    hidden_size: int = 1152
    num_hidden_layers: int = 32
    num_attention_heads: int = 18
    input_embedding_size: int = 256
    output_embedding_size: int = 1664
    intermediate_size: int = 4608
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    tie_word_embeddings: bool = False
    pad_token_id: int | None = 0
    bos_token_id: int | None = 312
    eos_token_id: int | list[int] | None = 313

    @property
    def ties_decoder(self) -> bool:
        """Never, whatever `tie_word_embeddings` says, as in Hugging Face: the two matrices differ in width."""
        return False

    @property
    def embedding_size(self) -> int:
        """See `EncoderConfig.embedding_size`."""
        return self.input_embedding_size

    @property
    def output_size(self) -> int:
        """See `EncoderConfig.output_size`."""
        return self.output_embedding_size

    @property
    def head_dropout_prob(self) -> float:
        """See `EncoderConfig.head_dropout_prob`."""
        return self.classifier_dropout_prob


@dataclass(kw_only=True)
class RobertaPreLayerNormConfig(EncoderConfig):
    """RoBERTa with the norms before attention and feed-forward (fairseq's `--encoder-normalize-before`).

    Defaults of Hugging Face's `RobertaPreLayerNormConfig`; checkpoints: Wettig et al. 2022, arXiv:2202.08005.
    """

    model_type: ClassVar[str] = "roberta-prelayernorm"
    base_model_prefix: ClassVar[str] = "roberta_prelayernorm"
    norm_first: ClassVar[bool] = True
    positions_skip_padding: ClassVar[bool] = True
    has_embedding_projection: ClassVar[bool] = False
    pooler_is_in_sequence_head: ClassVar[bool] = False

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    @property
    def head_dropout_prob(self) -> float:
        """See `EncoderConfig.head_dropout_prob`."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout


CONFIGS: dict[str, type[EncoderConfig]] = {
    config.model_type: config for config in (RemBertConfig, RobertaPreLayerNormConfig)
}


class AutoConfig:
    """Picks the configuration class by `model_type`."""

    @staticmethod
    def from_pretrained(location: Place, **overrides: Any) -> EncoderConfig:
        """The configuration in a checkpoint folder or fsspec URL.

        Raises:
            UnusableError: as `EncoderConfig.from_pretrained`; a `model_type` that is not one of ours.
        """
        folder = as_location(location)
        model_type = read_config(folder).get("model_type")
        if not isinstance(model_type, str) or model_type not in CONFIGS:
            where, known = str(folder.child(CONFIG_FILE)), "known: " + ", ".join(CONFIGS)
            raise UnusableError(Fault(where, f"model_type is {reprlib.repr(model_type)}", known))
        return CONFIGS[model_type].from_pretrained(folder, **overrides)


def read_config(folder: Location) -> dict[str, Any]:
    """The mapping of `<folder>/config.json`.

    Raises:
        UnusableError: the file is not there, cannot be read, or does not hold a JSON object.
    """
    where = folder.child(CONFIG_FILE)
    try:
        return read_json_object(where)
    except FileNotFoundError:
        raise UnusableError(
            Fault(str(where), "no such file", "a model folder holds config.json and model.safetensors")
        ) from None
    except storage_errors() as error:
        raise UnusableError(explain(str(where), error)) from error
