"""Loading and saving of checkpoints: strict, from and to any fsspec URL, without a second copy in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from rembert_ray.errors import UnusableError
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.inventory import INDEX_FILE, WEIGHTS_FILE, match, read_inventory
from rembert_ray.models.weight_map import Weight
from rembert_ray.storage.location import Location, locate

MAX_SHARD_BYTES = 5_000_000_000


class PretrainedModel(nn.Module):
    """Base of all models: a configuration, a map to Hugging Face's tensor names, loading and saving."""

    head: ClassVar[str]

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.config = config

    def weight_map(self) -> list[Weight]:
        """Every parameter of this model and the checkpoint tensors that it is made of."""
        raise TypeError(f"{type(self).__name__} has no weight map")

    def initialize_weights(self) -> None:
        """Hugging Face's initialization: normal with `initializer_range`, biases 0, the padding vector 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()

    @classmethod
    def from_pretrained(
        cls,
        location: str | Location,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> Self:
        """Load `config.json` and `model.safetensors` (or its sharded index) from a folder or fsspec URL.

        Tensors go one by one from the file into place, so the peak is one copy of the weights.

        Args:
            location: the folder.
            dtype: type of the parameters, whatever type the file has.
            device: where the parameters go.
            **options: further arguments of the class, such as `add_pooling_layer`.

        Returns:
            The model in evaluation mode.

        Raises:
            UnusableError: the folder has no model of this class; all missing, unknown and misshapen names at once.
        """
        folder = locate(location) if isinstance(location, str) else location
        config = RemBertConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = cls(config, **options)
        inventory = read_inventory(folder)
        names, faults = match(inventory, model.weight_map(), str(folder))
        if faults:
            raise UnusableError(faults)
        model = model.to(dtype).to_empty(device=device)
        parameters = dict(model.named_parameters())
        with open_files(folder, {tensor.file for tensor in inventory.values()}) as files:
            for name, sources in names.items():
                for place, source in zip(_parts(parameters[name].data, len(sources)), sources, strict=True):
                    place.copy_(files[inventory[source].file].get_tensor(source))
        return model.eval()

    def save_pretrained(self, location: str | Location, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write `config.json` and `model.safetensors` in Hugging Face's names.

        Args:
            location: a folder or fsspec URL; made if it is not there.
            max_shard_bytes: above this many bytes the weights go into several files with an index.
        """
        folder = locate(location) if isinstance(location, str) else location
        self.config.architectures = [type(self).__name__]
        self.config.extra["dtype"] = str(next(self.parameters()).dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        shards = _in_shards(self._tensors(), max_shard_bytes)
        if len(shards) == 1:
            _write(folder.child(WEIGHTS_FILE), shards[0])
            return
        weight_map: dict[str, str] = {}
        for index, shard in enumerate(shards, start=1):
            file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
            _write(folder.child(file), shard)
            weight_map |= dict.fromkeys(shard, file)
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
        folder.filesystem.pipe_file(folder.child(INDEX_FILE).path, text.encode())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        parameters = dict(self.named_parameters())
        for weight in self.weight_map():
            parts = _parts(parameters[weight.name].data, len(weight.sources))
            yield from zip(weight.sources, parts, strict=True)


@contextmanager
def open_files(folder: Location, files: set[str]) -> Iterator[dict[str, Any]]:
    """Open safetensors files for reading by tensor; remote ones by way of a temporary copy on disk."""
    with tempfile.TemporaryDirectory(prefix="rembert-ray-") as scratch:
        opened = {}
        for file in sorted(files):
            path = folder.child(file).path
            if not folder.is_local:
                remote, path = path, str(Path(scratch) / file)
                folder.filesystem.get_file(remote, path)
            opened[file] = safe_open(path, framework="pt")
        yield opened


def _parts(tensor: Tensor, n_parts: int) -> tuple[Tensor, ...]:
    return tensor.chunk(n_parts, dim=0)


def _in_shards(tensors: Iterator[tuple[str, Tensor]], max_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    filled_bytes = 0
    for name, tensor in tensors:
        if shards[-1] and filled_bytes + tensor.nbytes > max_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = tensor
        filled_bytes += tensor.nbytes
    return shards


def _write(location: Location, tensors: dict[str, Tensor]) -> None:
    # Parts of a fused parameter share its storage, which the format refuses: give each its own.
    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    location.filesystem.pipe_file(location.path, to_safetensors(own, metadata={"format": "pt"}))
