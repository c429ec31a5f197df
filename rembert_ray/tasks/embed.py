"""`task: embed`. One vector for each text.

A document of several windows is pooled by tokens: every token counts once, in the window where it is most central.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import BASE
from rembert_ray.ragged import splits
from rembert_ray.tasks import base

if TYPE_CHECKING:
    from torch import Tensor

    from rembert_ray.engine.runner import DeviceBatch, Encoder, Head
    from rembert_ray.models.heads import Model, Pooler

Pooling = Literal["cls", "pooler", "mean", "max"]


class EmbedParameters(base.Parameters):
    """The `head` section of `task: embed`."""

    pooling: Pooling = Field(
        default="mean",
        description="cls: the vector of [CLS]; pooler: the model's dense and tanh over it; "
        "mean, max: over all tokens, [CLS] and [SEP] included (as sentence-transformers does)",
    )
    normalize: bool = Field(default=True, description="scale vectors to length 1, so that a dot product is a cosine")
    dtype: Literal["float16", "float32"] = Field(default="float32", description="type of the written numbers")


class EmbedHead:
    """Pools on the device: one vector a window leaves it."""

    per_token = False

    def __init__(self, pooling: Pooling, pooler: Pooler | None) -> None:
        self.pooling = pooling
        self.pooler = pooler

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`vector` float32 `[windows, hidden]`: first token, pooled first token, sum or maximum of kept tokens."""
        import torch

        if self.pooling in ("cls", "pooler"):
            first = hidden[batch.cu_seqlens[:-1].long()]
            vector = self.pooler(first) if self.pooler is not None else first
        else:
            how = "sum" if self.pooling == "mean" else "max"
            kept = hidden[batch.kept].float()
            vector = torch.segment_reduce(kept, how, lengths=batch.kept_lengths, axis=0)
        return {"vector": vector.float()}


class Embed(base.Task):
    """Text embeddings."""

    name: ClassVar[str] = "embed"
    model_head: ClassVar[str] = BASE
    Parameters: ClassVar[type[base.Parameters]] = EmbedParameters
    reads_special_tokens: ClassVar[bool] = True
    parameters: EmbedParameters

    @property
    def has_pooler(self) -> bool:
        """See `Task.has_pooler`."""
        return self.parameters.pooling == "pooler"

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`embedding`, a fixed-size list of the model's hidden size."""
        number = pa.float16() if self.parameters.dtype == "float16" else pa.float32()
        return pa.schema([pa.field("embedding", pa.list_(pa.field("element", number), config.hidden_size))])

    def bind(self, model: Model) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, EmbedHead(self.parameters.pooling, model.pooler)

    def render(self, row: Mapping[str, Any]) -> str:
        """The kept columns and the first numbers of the vector."""
        own = {"embedding", "n_windows", "truncated", "error"}
        kept = " ".join(f"{name}={value}" for name, value in row.items() if name not in own)
        vector = row["embedding"]
        return f"{kept} [{', '.join(f'{number:.3f}' for number in vector[:5])}, ...] of {len(vector)}"

    def decode(self, rows: base.Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        vectors = _combine_windows(rows, self.parameters.pooling)
        if self.parameters.normalize:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        numbers = pa.array(vectors.astype(self.parameters.dtype).reshape(-1))
        field = self.schema(config).field("embedding")
        return {"embedding": pa.FixedSizeListArray.from_arrays(numbers, type=field.type)}


def _combine_windows(rows: base.Decodable, pooling: Pooling) -> NDArray[np.float32]:
    """Vectors of windows `[windows, hidden]` to vectors of rows `[rows, hidden]`."""
    vectors = cast(NDArray[np.float32], rows.values["vector"])
    first = splits(rows.n_windows)[:-1]
    if len(first) == 0:
        return vectors
    if pooling == "max":
        return cast(NDArray[np.float32], np.maximum.reduceat(vectors, first, axis=0))
    n_kept = rows.n_kept.astype(np.float32)
    weighted = vectors if pooling == "mean" else vectors * n_kept[:, None]
    total = np.add.reduceat(weighted, first, axis=0)
    return cast(NDArray[np.float32], total / np.add.reduceat(n_kept, first)[:, None])
