"""`task: embed`. One vector for each text.

A document of several windows is pooled by tokens: every token counts once, in the window where it is most central.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions
from rembert_ray.engine.packing import Long
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import BASE
from rembert_ray.ragged import as_lists, flat_values, splits
from rembert_ray.tasks import base
from rembert_ray.text.sentences import split_sentences
from rembert_ray.text.shown import Mark, Shown, sparkline

if TYPE_CHECKING:
    from torch import Tensor

    from rembert_ray.engine.device_batch import DeviceBatch, Reads
    from rembert_ray.engine.runner import Encoder, Head
    from rembert_ray.models.heads import Model, Pooler
    from rembert_ray.tokenizers.base import PretrainedTokenizer

Pooling = Literal["cls", "pooler", "mean", "max"]


N_SPARKS = 32


class EmbedParameters(base.Parameters):
    """The `head` section of `task: embed`."""

    pooling: Pooling = Field(
        default="mean",
        description="cls: the vector of [CLS]; pooler: the model's dense and tanh over it; "
        "mean, max: over all tokens, [CLS] and [SEP] included (as sentence-transformers does)",
    )
    vectors: Literal["document", "window", "sentence"] = Field(
        default="document",
        description="one vector a text, or a list with its places in the text: one for each window, or for each "
        "sentence, which is then read on its own",
    )
    normalize: bool = Field(default=True, description="scale vectors to length 1, so that a dot product is a cosine")
    dtype: Literal["float16", "float32"] = Field(default="float32", description="type of the written numbers")


class EmbedHead:
    """Pools on the device: one vector a window leaves it."""

    token_values: frozenset[str] = frozenset()

    def __init__(self, pooling: Pooling, pooler: Pooler | None) -> None:
        self.pooling = pooling
        self.pooler = pooler
        self.reads: Reads = "first" if pooling in ("cls", "pooler") else "all"

    def reduce(self, hidden: Tensor, batch: DeviceBatch) -> Mapping[str, Tensor]:
        """`vector` float32 `[windows, hidden]`: first token, pooled first token, sum or maximum of kept tokens."""
        import torch

        if self.pooling in ("cls", "pooler"):
            vector = self.pooler(hidden) if self.pooler is not None else hidden
        else:
            how = "sum" if self.pooling == "mean" else "max"
            kept = hidden[batch.kept].float()
            vector = torch.segment_reduce(kept, how, lengths=batch.kept_lengths, axis=0)
        return {"vector": vector.float()}


class Embed(base.TextTask):
    """Text embeddings."""

    name: ClassVar[str] = "embed"
    model_head: ClassVar[str] = BASE
    Parameters: ClassVar[type[base.Parameters]] = EmbedParameters
    keeps_special_tokens: ClassVar[bool] = True
    parameters: EmbedParameters

    def __init__(self, parameters: EmbedParameters) -> None:
        super().__init__(parameters)
        self.has_offsets = parameters.vectors == "window"

    @property
    def reads_whole_texts(self) -> bool:
        """See `TextTask.reads_whole_texts`."""
        return self.parameters.vectors != "sentence"

    @property
    def has_pooler(self) -> bool:
        """See `Task.has_pooler`."""
        return self.parameters.pooling == "pooler"

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`embedding`, a fixed-size list of the model's hidden size; or `embeddings`, a list of them with places."""
        number = pa.float16() if self.parameters.dtype == "float16" else pa.float32()
        vector = pa.list_(pa.field("element", number), config.hidden_size)
        if self.parameters.vectors == "document":
            return pa.schema([pa.field("embedding", vector)])
        places = [pa.field(name, pa.int32(), nullable=False) for name in ("start", "end")]
        part = pa.struct([*places, pa.field("embedding", vector, nullable=False)])
        return pa.schema([pa.field("embeddings", pa.list_(pa.field("element", part, nullable=False)))])

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`. Sentences are documents of their own, joined to those of the rows."""
        if self.parameters.vectors != "sentence":
            return super().encode(inputs, tokenizer, options)
        ranges = [split_sentences(text) for text in inputs["text"]]
        rows = zip(inputs["text"], ranges, strict=True)
        sentences = [text[start:end] for text, found in rows for start, end in found]
        parts = super().encode({"text": sentences}, tokenizer, options)
        of_rows = splits([len(found) for found in ranges])
        places = np.array([place for found in ranges for place in found], dtype=np.int32).reshape(-1, 2)
        row_of_sentence = np.repeat(np.arange(len(ranges)), np.diff(of_rows))
        # The first sentence with an error is the row's.
        errors = {int(row_of_sentence[index]): reason for index, reason in sorted(parts.errors.items(), reverse=True)}
        return _join(
            parts,
            of_rows,
            errors,
            {
                "places": as_lists(places, of_rows),
                "windows_of_parts": as_lists(parts.n_windows.astype(np.int32), of_rows),
            },
        )

    def bind(self, model: Model) -> tuple[Encoder, Head]:
        """See `Task.bind`."""
        return model.encoder, EmbedHead(self.parameters.pooling, model.pooler)

    def render(self, row: Mapping[str, Any]) -> str:
        """The kept columns and the first numbers of the (first) vector."""
        own = {"embedding", "embeddings", "n_windows", "truncated", "error"}
        kept = " ".join(f"{name}={value}" for name, value in row.items() if name not in own)
        if "embedding" in row:
            return f"{kept} {_shown(row['embedding'])}"
        parts = row["embeddings"]
        return f"{kept} {len(parts)} vectors" + (f", {_shown(parts[0]['embedding'])} ..." if parts else "")

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`."""
        return {"norm": pa.array(np.linalg.norm(self.vectors(rows), axis=1))}

    def vectors(self, rows: pa.Table) -> NDArray[np.float32]:
        """All vectors of these rows, `[vectors, dimensions]`; one for each row where `head.vectors` is document."""
        if self.parameters.vectors == "document":
            vectors = rows["embedding"].combine_chunks()
        else:
            vectors = pc.struct_field(pc.list_flatten(rows["embeddings"].combine_chunks()), "embedding")
        # `flatten` leaves out null rows, which have no vector.
        return np.asarray(vectors.flatten(), dtype=np.float32).reshape(-1, vectors.type.list_size)

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: length, size and first numbers of the (first) vector, the parts of the text as marks."""
        parts = row.get("embeddings") or []
        vectors = [row["embedding"]] if "embedding" in row else [part["embedding"] for part in parts]
        unit = "sentence" if self.parameters.vectors == "sentence" else "window"
        marks = tuple(
            Mark(part["start"], part["end"], f"{unit} {number}") for number, part in enumerate(parts, start=1)
        )
        shown = Shown(text="" if inputs is None else inputs["text"], marks=marks if inputs is not None else ())
        if parts or not vectors:
            shown = shown.plus(("vectors", str(len(vectors))))
        if not vectors:
            return shown
        first = np.asarray(vectors[0], dtype=np.float64)
        facts = {"dimensions": str(len(first)), "norm": f"{np.linalg.norm(first):.3f}"}
        return shown.plus(*facts.items(), ("vector", sparkline(first[:N_SPARKS].tolist()) + " ..."))

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: vectors, of a row with several ones their mean; of one with none zeros."""
        vectors = self.vectors(rows)
        if self.parameters.vectors == "document":
            n_vectors = np.asarray(rows["embedding"].combine_chunks().is_valid()).astype(np.int64)
        else:
            n_vectors = np.asarray(pc.fill_null(pc.list_value_length(rows["embeddings"].combine_chunks()), 0), np.int64)
        sums = np.zeros((rows.num_rows, vectors.shape[1]), np.float32)
        np.add.at(sums, np.repeat(np.arange(rows.num_rows), n_vectors), vectors)
        sums /= np.maximum(n_vectors, 1)[:, None]
        return base.Outcome(None, None, sums)

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        how, field = self.parameters.vectors, self.schema(config).field(0)
        if how == "document":
            return {field.name: self._vectors(rows, rows.n_windows, field.type)}
        if how == "window":
            n_parts, n_windows = rows.n_windows, np.ones(len(rows.n_kept), np.int64)
            places = _places_of_windows(rows)
        else:
            n_parts = np.asarray(rows.extras["windows_of_parts"].value_lengths()).astype(np.int64)
            n_windows = flat_values(rows.extras["windows_of_parts"]).astype(np.int64)
            places = flat_values(rows.extras["places"]).reshape(-1, 2)
        part = field.type.value_type
        vectors = self._vectors(rows, n_windows, part.field("embedding").type)
        columns = [pa.array(places[:, 0]), pa.array(places[:, 1]), vectors]
        parts = pa.StructArray.from_arrays(columns, fields=list(part))
        return {
            field.name: pa.ListArray.from_arrays(pa.array(splits(n_parts).astype(np.int32)), parts, type=field.type)
        }

    def _vectors(self, rows: Decodable, n_windows: Long, kind: pa.DataType) -> pa.Array:
        """A vector for each document of `n_windows` windows."""
        vectors = _combine_windows(rows, n_windows, self.parameters.pooling)
        if self.parameters.normalize:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(self.parameters.dtype).reshape(-1)), type=kind)


def _shown(vector: list[float]) -> str:
    return f"[{', '.join(f'{number:.3f}' for number in vector[:5])}, ...] of {len(vector)}"


def _join(parts: Documents, of_rows: Long, errors: dict[int, str], extras: dict[str, pa.Array]) -> Documents:
    """Documents of sentences as documents of rows; a row with an error loses all its windows."""

    def total(values: NDArray[Any]) -> Long:
        sums: Long = np.diff(splits(values)[of_rows])
        return sums

    is_bad = np.isin(np.arange(len(of_rows) - 1), list(errors))
    n_windows = total(parts.n_windows)
    kept = np.flatnonzero(~np.repeat(is_bad, n_windows))
    return Documents(
        windows=parts.windows if not errors else parts.windows.take(kept),
        n_windows=np.where(is_bad, 0, n_windows),
        n_tokens=np.where(is_bad, 0, total(parts.n_tokens)),
        truncated=(total(parts.truncated) > 0) & ~is_bad,
        errors=errors,
        extras=extras,
    )


def _places_of_windows(rows: Decodable) -> NDArray[np.int32]:
    """First and last character of the tokens of the text that each window owns, int32 `[windows, 2]`."""
    assert rows.offsets is not None
    last = np.cumsum(rows.n_windows) - 1
    n_owned = rows.n_kept.copy()
    n_owned[last] -= 1
    n_owned[last - rows.n_windows + 1] -= 1
    bounds = splits(n_owned)
    offsets = np.concatenate([rows.offsets, np.zeros((1, 2), np.int32)])
    starts, ends = offsets[bounds[:-1], 0], offsets[np.maximum(bounds[1:] - 1, 0), 1]
    is_empty = n_owned == 0
    return np.stack([np.where(is_empty, 0, starts), np.where(is_empty, 0, ends)], axis=1).astype(np.int32)


def _combine_windows(rows: Decodable, n_windows: Long, pooling: Pooling) -> NDArray[np.float32]:
    """Vectors of windows `[windows, hidden]` to vectors of documents of `n_windows` windows each."""
    vectors = cast(NDArray[np.float32], rows.values["vector"])
    first = splits(n_windows)[:-1]
    if len(first) == 0:
        return vectors
    if pooling == "max":
        return cast(NDArray[np.float32], np.maximum.reduceat(vectors, first, axis=0))
    n_kept = rows.n_kept.astype(np.float32)
    weighted = vectors if pooling == "mean" else vectors * n_kept[:, None]
    total = np.add.reduceat(weighted, first, axis=0)
    return cast(NDArray[np.float32], total / np.add.reduceat(n_kept, first)[:, None])
