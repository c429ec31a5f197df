"""Loading and saving of checkpoints: strict, from and to any fsspec URL, without a second copy in memory."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from rembert_ray.errors import UnusableError
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.inventory import Match, match, read_inventory
from rembert_ray.models.inventory import Tensor as StoredTensor
from rembert_ray.models.outputs import ModelOutput
from rembert_ray.models.weight_map import Weight, model_weights
from rembert_ray.models.weights_file import DTYPES, read_tensors, write_tensors
from rembert_ray.storage.location import Location, Place, as_location

MAX_SHARD_BYTES = 5_000_000_000


class PretrainedModel(nn.Module):
    """Base of all models: a configuration, an encoder, a map to Hugging Face's tensor names, loading and saving."""

    config_class: ClassVar[type[EncoderConfig]]
    head_name: ClassVar[str]
    head: nn.Module

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def weight_map(self) -> list[Weight]:
        """Every parameter of this model and the checkpoint tensors that it is made of."""
        return model_weights(self.config, self.head_name, with_pooler=getattr(self, "pooler", None) is not None)

    def gives_dataclass(self, return_dict: bool | None) -> bool:
        """What `return_dict`, or else the configuration says: a dataclass, not a tuple."""
        return self.config.return_dict if return_dict is None else return_dict

    def give(self, output: ModelOutput, return_dict: bool | None) -> ModelOutput | tuple[Any, ...]:
        """`output` as it is, or as a tuple."""
        return output if self.gives_dataclass(return_dict) else output.to_tuple()

    def initialize_weights(self) -> None:
        """Hugging Face's initialization: normal with `initializer_range`, biases 0, the padding vector 0."""
        for module in self.modules():
            _initialize(module, self.config.initializer_range)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Give the decoder of a language modelling head the matrix of the word embeddings, if they are tied."""
        decoder = getattr(getattr(self, "head", None), "decoder", None)
        if self.config.ties_decoder and isinstance(decoder, nn.Linear):
            decoder.weight = self.encoder.embeddings.word.weight

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def num_parameters(self) -> int:
        """Number of weights; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_pretrained(
        cls,
        location: Place,
        *,
        config: EncoderConfig | None = None,
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
        strict: bool = False,
        **options: Any,
    ) -> Self:
        """Load `config.json` and `model.safetensors` (or its sharded index) from a folder or fsspec URL.

        Tensors go one by one from the file into place, so the peak is one copy of the weights.

        Args:
            location: the folder.
            config: taken instead of the folder's `config.json`.
            dtype: type of the parameters, whatever type the file has; or its name, or "auto" for the file's own.
                float32 if nothing is said, where Hugging Face 5 says "auto".
            device: where the parameters go.
            strict: refuse a folder that lacks the head, too. Otherwise a head (or pooler) that is not there is
                initialized at random, with a warning that names its tensors, as Hugging Face does for fine-tuning.
            **options: values of the configuration (`num_labels=3`) and further arguments of the class
                (`add_pooling_layer=False`).

        Returns:
            The model in evaluation mode.

        Raises:
            UnusableError: the folder has no model of this class; all missing, unknown and misshapen names at once.
            TypeError: an option that neither the configuration nor the class has.
            ValueError: a name that is no type.
        """
        folder = as_location(location)
        of_class = {name: options.pop(name) for name in cls._options() if name in options}
        if config is not None and options:
            raise TypeError(f"{', '.join(options)} beside config: set it in the configuration")
        if config is None:
            config = cls.config_class.from_pretrained(folder, **options)
        with torch.device("meta"):
            model = cls(config, **of_class)
        inventory = read_inventory(folder)
        found = match(inventory, model.weight_map(), config.base_model_prefix)
        if found.missing or found.unknown or found.wrong or (strict and found.missing_head):
            raise UnusableError(found.faults(str(folder)))
        model = model.to(_resolve_dtype(dtype, inventory)).to_empty(device=device)
        model.tie_weights()
        if found.missing_head:
            names = ", ".join(found.missing_head)
            warnings.warn(f"{folder} lacks {names}: initialized at random, to be trained", stacklevel=2)
        model._fill(folder, inventory, found)
        return model.eval()

    @classmethod
    def _options(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "config")]

    def _fill(self, folder: Location, inventory: dict[str, StoredTensor], found: Match) -> None:
        parameters = dict(self.named_parameters())
        places: dict[str, Tensor] = {}
        for name, sources in found.sources.items():
            if inventory.keys() >= set(sources):
                places |= dict(zip(sources, _parts(parameters[name].data, len(sources)), strict=True))
            else:
                _initialize(self.get_submodule(name.rpartition(".")[0]), self.config.initializer_range)
        read_tensors(folder, inventory, places)

    def save_pretrained(self, location: Place, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write `config.json` and `model.safetensors` in Hugging Face's names.

        Args:
            location: a folder or fsspec URL; made if it is not there.
            max_shard_bytes: above this many bytes the weights go into several files with an index.
        """
        folder = as_location(location)
        self.config.architectures = [type(self).__name__]
        self.config.extra["dtype"] = str(self.dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        write_tensors(folder, self._tensors(), max_shard_bytes)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        parameters = dict(self.named_parameters())
        for weight in self.weight_map():
            parts = _parts(parameters[weight.name].data, len(weight.sources))
            yield from zip(weight.sources, parts, strict=True)
            yield from ((name, parameters[weight.name].data) for name in weight.copies)


def _resolve_dtype(dtype: torch.dtype | str, inventory: dict[str, StoredTensor]) -> torch.dtype:
    if dtype == "auto":
        return DTYPES[next(iter(inventory.values())).dtype]
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}: give a floating point type of torch, its name, or 'auto'")
    return found


def _initialize(module: nn.Module, std: float) -> None:
    with torch.no_grad():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(std=std)
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.bias.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()


def _parts(tensor: Tensor, n_parts: int) -> tuple[Tensor, ...]:
    return tensor.chunk(n_parts, dim=0)
