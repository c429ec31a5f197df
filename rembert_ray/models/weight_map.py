"""How the tensors of a checkpoint (Hugging Face names) make up the parameters of our modules, as data. No torch.

One table serves three readers: loading (join), saving (split), and the check of a model folder before Ray starts,
which compares names and shapes with the safetensors headers alone. The families differ in names, not in shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rembert_ray.models.config import EncoderConfig

BASE = "base"
CAUSAL_LM = "causal_lm"
MASKED_LM = "masked_lm"
SEQUENCE_CLASSIFICATION = "sequence_classification"
MULTIPLE_CHOICE = "multiple_choice"
TOKEN_CLASSIFICATION = "token_classification"
QUESTION_ANSWERING = "question_answering"
HEADS = (
    *(BASE, CAUSAL_LM, MASKED_LM, SEQUENCE_CLASSIFICATION),
    *(MULTIPLE_CHOICE, TOKEN_CLASSIFICATION, QUESTION_ANSWERING),
)

# Tensors of heads that a base model or another head may leave unread without anything being wrong.
HEAD_PREFIXES = ("classifier.", "cls.", "lm_head.", "qa_outputs.")

# Our norm slots and where each family keeps them within a layer.
NORM_SLOTS = {
    False: {
        "norm_after_attention": "attention.output.LayerNorm",
        "norm_after_cross_attention": "crossattention.output.LayerNorm",
        "norm_after_feed_forward": "output.LayerNorm",
    },
    True: {
        "norm_before_attention": "attention.LayerNorm",
        "norm_before_cross_attention": "crossattention.LayerNorm",
        "norm_before_feed_forward": "intermediate.LayerNorm",
    },
}
# dense, norm, decoder and the decoder's bias of the language modelling head.
LM_HEADS = {
    "rembert": ("cls.predictions.dense", "cls.predictions.LayerNorm", "cls.predictions.decoder"),
    "roberta_prelayernorm": ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"),
}


@dataclass(frozen=True)
class Weight:
    """One parameter of ours: `name` is the concatenation along dimension 0 of the checkpoint's `sources`.

    `copies` are further names under which Hugging Face stores the whole; they are written and never read.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    copies: tuple[str, ...] = ()

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape of each source: they are all equal."""
        return (self.shape[0] // len(self.sources), *self.shape[1:])


def model_weights(config: EncoderConfig, head: str, *, with_pooler: bool = True) -> list[Weight]:
    """Every parameter of a model with `head`.

    Names of the encoder's tensors begin with the family's prefix, but for the bare encoder (`BASE`), which Hugging
    Face stores without it. `with_pooler` counts for the bare encoder only.
    """
    prefix = "" if head == BASE else f"{config.base_model_prefix}."
    return [*_encoder(config, prefix), *_head(config, head, prefix, with_pooler)]


def _head(config: EncoderConfig, head: str, prefix: str, with_pooler: bool) -> Iterator[Weight]:
    hidden = config.hidden_size
    if head == BASE and with_pooler:
        yield from _affine("pooler.dense", "pooler.dense", hidden, hidden)
    if head in (CAUSAL_LM, MASKED_LM):
        yield from _language_model(config)
    if head == SEQUENCE_CLASSIFICATION and not config.pooler_is_in_sequence_head:
        yield from _affine("head.dense", "classifier.dense", hidden, hidden)
        yield from _affine("head.classifier", "classifier.out_proj", len(config.id2label), hidden)
    elif head in (SEQUENCE_CLASSIFICATION, MULTIPLE_CHOICE):
        yield from _affine("head.dense", f"{prefix}pooler.dense", hidden, hidden)
        n_labels = 1 if head == MULTIPLE_CHOICE else len(config.id2label)
        yield from _affine("head.classifier", "classifier", n_labels, hidden)
    if head == TOKEN_CLASSIFICATION:
        yield from _affine("head.classifier", "classifier", len(config.id2label), hidden)
    if head == QUESTION_ANSWERING:
        yield from _affine("head", "qa_outputs", len(config.id2label), hidden)


def _language_model(config: EncoderConfig) -> Iterator[Weight]:
    dense, norm, decoder = LM_HEADS[config.base_model_prefix]
    size = config.output_size
    yield from _affine("head.dense", dense, size, config.hidden_size)
    yield from _affine("head.norm", norm, size)
    bias, beside = f"{decoder}.bias", f"{decoder.rpartition('.')[0]}.bias"
    if config.ties_decoder:
        # The matrix is the word embeddings', and Hugging Face stores the bias beside the decoder.
        yield Weight("head.decoder.bias", (beside,), (config.vocab_size,))
        return
    yield Weight("head.decoder.weight", (f"{decoder}.weight",), (config.vocab_size, size))
    # RoBERTa untied has a second bias that nothing reads.
    yield Weight("head.decoder.bias", (bias,), (config.vocab_size,), (beside,) if config.norm_first else ())


def _encoder(config: EncoderConfig, prefix: str) -> Iterator[Weight]:
    size, hidden = config.embedding_size, config.hidden_size
    tables = {
        "word": ("word_embeddings", config.vocab_size),
        "position": ("position_embeddings", config.max_position_embeddings),
        "token_type": ("token_type_embeddings", config.type_vocab_size),
    }
    for name, (source, rows) in tables.items():
        yield Weight(f"encoder.embeddings.{name}.weight", (f"{prefix}embeddings.{source}.weight",), (rows, size))
    yield from _affine("encoder.embeddings.norm", f"{prefix}embeddings.LayerNorm", size)
    if config.has_embedding_projection:
        yield from _affine("encoder.projection", f"{prefix}encoder.embedding_hidden_mapping_in", hidden, size)
    for layer in range(config.num_hidden_layers):
        yield from _layer(config, f"encoder.layers.{layer}", f"{prefix}encoder.layer.{layer}")
    if config.norm_first:
        yield from _affine("encoder.norm", f"{prefix}LayerNorm", hidden)


def _layer(config: EncoderConfig, ours: str, theirs: str) -> Iterator[Weight]:
    hidden, inner = config.hidden_size, config.intermediate_size
    qkv = [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")]
    yield from _affine(f"{ours}.attention.qkv", qkv, 3 * hidden, hidden)
    yield from _affine(f"{ours}.attention.output", f"{theirs}.attention.output.dense", hidden, hidden)
    if config.add_cross_attention:
        cross = f"{theirs}.crossattention"
        yield from _affine(f"{ours}.cross_attention.query", f"{cross}.self.query", hidden, hidden)
        key_value = [f"{cross}.self.{part}" for part in ("key", "value")]
        yield from _affine(f"{ours}.cross_attention.key_value", key_value, 2 * hidden, hidden)
        yield from _affine(f"{ours}.cross_attention.output", f"{cross}.output.dense", hidden, hidden)
    yield from _affine(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense", inner, hidden)
    yield from _affine(f"{ours}.feed_forward.down", f"{theirs}.output.dense", hidden, inner)
    for slot, source in NORM_SLOTS[config.norm_first].items():
        if "cross" not in slot or config.add_cross_attention:
            yield from _affine(f"{ours}.{slot}", f"{theirs}.{source}", hidden)


def _affine(name: str, source: str | list[str], rows: int, columns: int | None = None) -> Iterator[Weight]:
    """Weight and bias of a linear layer, or of a norm (no `columns`)."""
    sources = [source] if isinstance(source, str) else source
    shape = (rows,) if columns is None else (rows, columns)
    yield Weight(f"{name}.weight", tuple(f"{part}.weight" for part in sources), shape)
    yield Weight(f"{name}.bias", tuple(f"{part}.bias" for part in sources), (rows,))
