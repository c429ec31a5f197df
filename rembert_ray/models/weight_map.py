"""How the tensors of a checkpoint (Hugging Face names) make up the parameters of our modules, as data. No torch.

One table serves three readers: loading (join), saving (split), and the check of a model folder before Ray starts,
which compares names and shapes with the safetensors headers alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rembert_ray.models.config import RemBertConfig

BASE = "base"
TOKEN_CLASSIFICATION = "token_classification"
HEADS = (BASE, TOKEN_CLASSIFICATION)

# Tensors of heads that a base model or another head may leave unread without anything being wrong.
HEAD_PREFIXES = ("classifier.", "cls.predictions.", "qa_outputs.")


@dataclass(frozen=True)
class Weight:
    """One parameter of ours: `name` is the concatenation along dimension 0 of the checkpoint's `sources`."""

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape of each source: they are all equal."""
        return (self.shape[0] // len(self.sources), *self.shape[1:])


def rembert_weights(config: RemBertConfig, head: str, *, with_pooler: bool) -> list[Weight]:
    """Every parameter of RemBERT with `head`, in Hugging Face's names with the `rembert.` prefix.

    A bare `RemBertModel` is stored by Hugging Face without that prefix: see `without_prefix`.
    """
    weights = [*_embeddings(config)]
    for layer in range(config.num_hidden_layers):
        weights += _layer(config, layer)
    hidden = config.hidden_size
    if with_pooler:
        weights += _affine("pooler.dense", ("pooler.dense",), hidden, hidden)
    body = [Weight(f"rembert.{w.name}", tuple(f"rembert.{source}" for source in w.sources), w.shape) for w in weights]
    if head == TOKEN_CLASSIFICATION:
        body += _affine("classifier", ("classifier",), config.num_labels, hidden)
    return body


def without_prefix(weights: list[Weight]) -> list[Weight]:
    """The same weights with the leading `rembert.` removed on both sides."""
    strip = "rembert."
    return [
        Weight(w.name.removeprefix(strip), tuple(s.removeprefix(strip) for s in w.sources), w.shape) for w in weights
    ]


def _affine(name: str, sources: tuple[str, ...], rows: int, columns: int) -> Iterator[Weight]:
    yield Weight(f"{name}.weight", tuple(f"{source}.weight" for source in sources), (rows, columns))
    yield Weight(f"{name}.bias", tuple(f"{source}.bias" for source in sources), (rows,))


def _norm(name: str, source: str, size: int) -> Iterator[Weight]:
    yield Weight(f"{name}.weight", (f"{source}.weight",), (size,))
    yield Weight(f"{name}.bias", (f"{source}.bias",), (size,))


def _embeddings(config: RemBertConfig) -> Iterator[Weight]:
    size = config.input_embedding_size
    tables = {
        "word": ("word_embeddings", config.vocab_size),
        "position": ("position_embeddings", config.max_position_embeddings),
        "token_type": ("token_type_embeddings", config.type_vocab_size),
    }
    for name, (source, rows) in tables.items():
        yield Weight(f"embeddings.{name}.weight", (f"embeddings.{source}.weight",), (rows, size))
    yield from _norm("embeddings.norm", "embeddings.LayerNorm", size)
    yield from _affine("encoder.projection", ("encoder.embedding_hidden_mapping_in",), config.hidden_size, size)


def _layer(config: RemBertConfig, layer: int) -> Iterator[Weight]:
    hidden, inner = config.hidden_size, config.intermediate_size
    ours, theirs = f"encoder.layers.{layer}", f"encoder.layer.{layer}"
    qkv = tuple(f"{theirs}.attention.self.{part}" for part in ("query", "key", "value"))
    yield from _affine(f"{ours}.attention.qkv", qkv, 3 * hidden, hidden)
    yield from _affine(f"{ours}.attention.output", (f"{theirs}.attention.output.dense",), hidden, hidden)
    yield from _norm(f"{ours}.norm_after_attention", f"{theirs}.attention.output.LayerNorm", hidden)
    yield from _affine(f"{ours}.feed_forward.up", (f"{theirs}.intermediate.dense",), inner, hidden)
    yield from _affine(f"{ours}.feed_forward.down", (f"{theirs}.output.dense",), hidden, inner)
    yield from _norm(f"{ours}.norm_after_feed_forward", f"{theirs}.output.LayerNorm", hidden)
