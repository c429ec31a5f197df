"""Model configurations, read from and written to Hugging Face's `config.json`. No torch: `plan` reads them too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.location import Location, locate, read_bytes

CONFIG_FILE = "config.json"
ACTIVATIONS = ("gelu", "gelu_new", "relu", "selu", "silu")


@dataclass
class RemBertConfig:
    """Configuration of a RemBERT model; names and defaults are those of Hugging Face's `RemBertConfig`.

    Chung et al. 2020, "Rethinking embedding coupling in pre-trained language models" (arXiv:2010.12821).
    Keys of a `config.json` that are not fields here are kept in `extra` and written back unchanged.
    """

    model_type: ClassVar[str] = "rembert"

    vocab_size: int = 250300
    hidden_size: int = 1152
    num_hidden_layers: int = 32
    num_attention_heads: int = 18
    input_embedding_size: int = 256
    output_embedding_size: int = 1664
    intermediate_size: int = 4608
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    use_cache: bool = True
    is_decoder: bool = False
    add_cross_attention: bool = False
    pad_token_id: int = 0
    bos_token_id: int = 312
    eos_token_id: int = 313
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    label2id: dict[str, int] = field(default_factory=dict)
    architectures: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id2label = {int(index): str(label) for index, label in self.id2label.items()}
        if not self.label2id:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def num_labels(self) -> int:
        """Number of labels of a classification head: the size of `id2label`."""
        return len(self.id2label)

    @property
    def labels(self) -> list[str]:
        """Label names by id; an id without a name reads `LABEL_<id>`, as in Hugging Face."""
        return [self.id2label.get(index, f"LABEL_{index}") for index in range(self.num_labels)]

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def faults(self, where: str) -> list[Fault]:
        """Everything in this configuration that no model can be built from."""
        found = []
        for f in fields(self):
            value = getattr(self, f.name)
            # bool is an int in Python: `vocab_size: true` must not pass as 1.
            if f.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                found.append(Fault(where, f"{f.name} is {value!r}, not a whole number"))
        if found:
            return found
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            found.append(
                Fault(
                    where,
                    f"hidden_size {self.hidden_size} is not a multiple of "
                    f"num_attention_heads {self.num_attention_heads}",
                )
            )
        if self.hidden_act not in ACTIVATIONS:
            found.append(
                Fault(where, f"hidden_act {self.hidden_act!r} is not known", "known: " + ", ".join(ACTIVATIONS))
            )
        return found

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from the mapping of a `config.json`; absent keys take the documented defaults."""
        known = {f.name for f in fields(cls)} - {"extra"}
        given = {key: value for key, value in values.items() if key in known and value is not None}
        if "num_labels" in values and "id2label" not in given:
            given["id2label"] = {index: f"LABEL_{index}" for index in range(int(values["num_labels"]))}
        extra = {key: value for key, value in values.items() if key not in known | {"num_labels", "model_type"}}
        return cls(**given, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The mapping that `config.json` holds: fields, then unknown keys as they were read."""
        values = asdict(self)
        extra = values.pop("extra")
        values["id2label"] = {str(index): label for index, label in self.id2label.items()}
        return {"model_type": self.model_type, **values, **extra}

    @classmethod
    def from_pretrained(cls, location: str | Location) -> Self:
        """Read `config.json` of a checkpoint folder or fsspec URL.

        Raises:
            UnusableError: no `config.json`, no JSON object in it, another model type, or impossible sizes.
        """
        folder = locate(location) if isinstance(location, str) else location
        values = read_config(folder)
        where = str(folder.child(CONFIG_FILE))
        if values.get("model_type") != cls.model_type:
            raise UnusableError(
                Fault(where, f"model_type is {values.get('model_type')!r}", f"expected {cls.model_type!r}")
            )
        try:
            config = cls.from_dict(values)
        except (TypeError, ValueError, AttributeError) as error:
            raise UnusableError(Fault(where, f"cannot be read as a {cls.__name__}: {error}")) from error
        if faults := config.faults(where):
            raise UnusableError(faults)
        return config

    def save_pretrained(self, location: str | Location) -> None:
        """Write `config.json` into a folder or fsspec URL."""
        folder = locate(location) if isinstance(location, str) else location
        folder.filesystem.makedirs(folder.path, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        folder.filesystem.pipe_file(folder.child(CONFIG_FILE).path, text.encode())


def read_config(folder: Location) -> dict[str, Any]:
    """The mapping of `<folder>/config.json`.

    Raises:
        UnusableError: the file is not there or does not hold a JSON object.
    """
    where = folder.child(CONFIG_FILE)
    try:
        values = json.loads(read_bytes(where))
    except FileNotFoundError:
        raise UnusableError(
            Fault(str(where), "no such file", "a model folder holds config.json and model.safetensors")
        ) from None
    except ValueError as error:
        raise UnusableError(Fault(str(where), f"is not JSON: {error}")) from error
    if not isinstance(values, dict):
        raise UnusableError(Fault(str(where), f"holds a {type(values).__name__}, not an object"))
    return values
