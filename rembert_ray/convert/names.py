"""From the names of older releases to Hugging Face's PyTorch names of today, and the head that a checkpoint has.

It sees names, types and shapes only, no weights; what a model needs is the word of `models/weight_map.py` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.models.auto import CLASS_SUFFIXES, FAMILIES
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.inventory import Match, Tensor, match
from rembert_ray.models.weight_map import BASE, CAUSAL_LM, HEAD_PREFIXES, HEADS, LM_HEADS, model_weights

# Registered as buffers by releases before 4.31.
COUNTED = ("embeddings.position_ids", "embeddings.token_type_ids")
# First parts of the encoder's names, which a bare encoder is stored without prefix.
ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.", "LayerNorm.")
# What a TensorFlow variable is called, and what the same is called in PyTorch. `kernel` is stored transposed.
TF_LEAVES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "weight": "weight",
    "bias": "bias",
}
OLD_NORM = re.compile(r"(LayerNorm|layer_norm)\.(gamma|beta)$")


@dataclass(frozen=True)
class Origin:
    """Where a tensor of the new folder comes from: the stored name, and whether its rows are columns there."""

    stored: str
    is_transposed: bool = False


@dataclass(frozen=True)
class Translation:
    """What becomes of each stored tensor.

    origins: today's names (those of the encoder with the family's prefix) and what each is made of.
    copies: stored tensors that must equal the one of that name, and are left out.
    dropped: stored tensors that are left out, with the reason.
    """

    origins: dict[str, Origin]
    copies: dict[str, str]
    dropped: dict[str, str]


def translate(stored_names: Iterable[str], config: EncoderConfig) -> Translation:
    """Today's name of each stored tensor: PyTorch names of any release, TensorFlow names of h5 or safetensors."""
    origins: dict[str, Origin] = {}
    copies: dict[str, str] = {}
    dropped: dict[str, str] = {}
    second_names = _second_names(config)
    renamed = [(stored, *_rename(stored, config.base_model_prefix)) for stored in stored_names]
    # First names first: then what is left out is the second one.
    for stored, first_name, is_transposed in sorted(renamed, key=lambda found: found[1] in second_names):
        name = second_names.get(first_name, first_name)
        if name.endswith(COUNTED):
            dropped[stored] = "counted, not learnt"
        elif name in origins:
            copies[stored] = name
        else:
            origins[name] = Origin(stored, is_transposed)
    _, _, decoder = LM_HEADS[config.base_model_prefix]
    bias = f"{decoder.rpartition('.')[0]}.bias"
    if not config.ties_decoder and bias in origins:
        # Until 5.0 the two were one parameter, and some files have it under one name only.
        origins.setdefault(f"{decoder}.bias", origins[bias])
    return Translation(origins, copies, dropped)


def _second_names(config: EncoderConfig) -> dict[str, str]:
    """Names of tied parameters and the names under which they are stored today."""
    if not config.ties_decoder:
        return {}
    _, _, decoder = LM_HEADS[config.base_model_prefix]
    return {
        f"{decoder}.weight": f"{config.base_model_prefix}.embeddings.word_embeddings.weight",
        f"{decoder}.bias": f"{decoder.rpartition('.')[0]}.bias",
    }


def _rename(stored: str, prefix: str) -> tuple[str, bool]:
    """Today's name, the encoder's with `prefix`, and whether the matrix has to be transposed.

    A name that means nothing here is left as it is: it fits no model, which is then said of it.
    """
    if "/" in stored:
        return _rename_tensorflow(stored, prefix)
    name = OLD_NORM.sub(lambda found: f"{found[1]}.{TF_LEAVES[found[2]]}", stored)
    return (f"{prefix}.{name}" if name.startswith(ENCODER_PARTS) else name), False


def _rename_tensorflow(stored: str, prefix: str) -> tuple[str, bool]:
    """`<layer>/<model>/rembert/encoder/layer_._0/output/dense/kernel:0` -> `rembert.encoder.layer.0...weight`.

    In Hugging Face's TensorFlow classes `_._` stands for a level, and `x___y` for `y`. What precedes the encoder or
    the head depends on the format of the file and on the user's names: the last of their names is where it begins.
    """
    parts = re.sub(r"[^/]*___", "", stored.removesuffix(":0").replace("_._", "/")).split("/")
    roots = {prefix, *(head.rstrip(".") for head in HEAD_PREFIXES)}
    starts = [index for index, part in enumerate(parts) if part in roots]
    if not starts or parts[-1] not in TF_LEAVES:
        return stored, False
    return ".".join([*parts[starts[-1] : -1], TF_LEAVES[parts[-1]]]), parts[-1] == "kernel"


def new_inventory(inventory: Mapping[str, Tensor], origins: Mapping[str, Origin]) -> dict[str, Tensor]:
    """The inventory that the new folder will have: today's names, with the shapes they get."""
    stored = {name: inventory[origin.stored] for name, origin in origins.items()}
    return {
        name: replace(tensor, shape=tensor.shape[::-1]) if origins[name].is_transposed else tensor
        for name, tensor in stored.items()
    }


def class_name(config: EncoderConfig, head: str) -> str:
    """Hugging Face's name of the model class."""
    return f"{FAMILIES[config.model_type][1]}{CLASS_SUFFIXES[head]}"


def find_head(inventory: Mapping[str, Tensor], config: EncoderConfig, where: str) -> str:
    """The head that the weights are of (one of `weight_map.HEADS`).

    It is the one that `architectures` of config.json names, if its tensors are all there. Without one, or when the
    weights have nothing of it (an encoder under the configuration of a head), it is the head that uses most of them.

    Raises:
        UnusableError: the weights fit no head of the family; all missing, unknown and misshapen names.
    """
    found = {head: _match(inventory, config, head) for head in HEADS}
    classes = [architecture.removeprefix("TF") for architecture in config.architectures]
    declared = [head for head in HEADS if class_name(config, head) in classes]
    if declared and not _is_absent(found[declared[0]], inventory):
        _refuse(found[declared[0]], where, with_head=True)
        return declared[0]
    _refuse(found[BASE], where, with_head=False)
    fitting = [head for head in HEADS if not found[head].faults(where)]
    # A language model is causal only if the configuration says that it is a decoder: the weights look the same.
    fitting.sort(key=lambda head: head == CAUSAL_LM and not config.is_decoder)
    head = max(fitting, key=lambda head: len(found[head].sources))
    if head == BASE and (odd := [name for name in inventory if name.startswith(HEAD_PREFIXES)]):
        what = f"{', '.join(odd)}: of no head of this family, or of another number of labels than config.json has"
        raise UnusableError(Fault(where, what, f"it has {len(config.id2label)} labels: correct id2label"))
    return head


def _match(inventory: Mapping[str, Tensor], config: EncoderConfig, head: str) -> Match:
    with_pooler = any(".pooler." in f".{name}" for name in inventory)
    weights = model_weights(config, head, with_pooler=with_pooler)
    return match(inventory, weights, config.base_model_prefix)


def _is_absent(found: Match, inventory: Mapping[str, Tensor]) -> bool:
    """Whether a head needs tensors of its own and has none of them."""
    of_head = {name for names in found.sources.values() for name in names if name.startswith(HEAD_PREFIXES)}
    return bool(of_head) and not of_head & inventory.keys()


def _refuse(found: Match, where: str, *, with_head: bool) -> None:
    faults = (found if with_head else replace(found, missing_head=())).faults(where)
    if faults:
        raise UnusableError(faults)
