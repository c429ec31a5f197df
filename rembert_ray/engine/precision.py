"""The words of `precision` in a manifest: what each means, what it needs, and what a model becomes under it.

Importing this file imports no torch, so that a manifest is checked without it; the fast layers are in `prepacked`,
`compiled`, `float8` and `int8`. Drift and speed of every word are measured by `benchmarks/precision.py`.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rembert_ray.models.config import EncoderConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

AUTO = "auto"
FLOAT8 = "float8"
INT8 = "int8"
# What a word makes of the weights when they are loaded; float8 and int8 convert the layers' products after that.
DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16", FLOAT8: "bfloat16", INT8: "float32"}
# Both dimensions of a float8 product on a GPU are multiples of this.
FLOAT8_MULTIPLE = 16
# As Linux names them on x86 and on Arm.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
INT8_FLAG = "avx512_vnni"
PROCESSOR = Path("/proc/cpuinfo")


def resolve_precision(word: str, gpus_per_actor: float) -> str:
    """`auto` is float32 without GPUs and bfloat16 with them: decided by the manifest alone, not by the cluster."""
    if word != AUTO:
        return word
    return "bfloat16" if gpus_per_actor else "float32"


def precision_fault(precision: str, gpus_per_actor: float, config: EncoderConfig | None) -> tuple[str, str] | None:
    """What keeps a resolved precision from running, and what to do instead; None where nothing is known to.

    `config` is None where the model cannot be read.
    """
    if precision == INT8 and gpus_per_actor:
        return "int8 products are for CPUs, and resources.gpus_per_actor is not 0", "set precision: float8 or bfloat16"
    if precision != FLOAT8:
        return None
    if not gpus_per_actor:
        what = "float8 products need a GPU, and resources.gpus_per_actor is 0"
        return what, "set resources.gpus_per_actor: 1, or precision: int8 or float32"
    sizes = {} if config is None else {name: getattr(config, name) for name in ("hidden_size", "intermediate_size")}
    odd = [f"{name} is {size}" for name, size in sizes.items() if size % FLOAT8_MULTIPLE]
    if odd:
        what = f"float8 needs sizes that are multiples of {FLOAT8_MULTIPLE}; the model's {' and '.join(odd)}"
        return what, "set precision: bfloat16"
    return None


def precision_warnings(precision: str, gpus_per_actor: float, flags: Container[str]) -> list[str]:
    """What a person should know of a resolved precision that runs but may be slow; `flags` of the processor."""
    if gpus_per_actor:
        return []
    if precision == "float16":
        return [
            "precision: float16 without a GPU is several times slower than float32, because CPUs have no fast float16 "
            "product here: set float32, or bfloat16 where the processor has it"
        ]
    if precision == "bfloat16" and not any(flag in flags for flag in BFLOAT16_FLAGS):
        return [
            "precision: bfloat16 without a GPU, and this machine's processor has no bfloat16 products "
            "(avx512_bf16, amx_bf16): if the workers' have none either, float32 is several times faster"
        ]
    if precision == INT8 and INT8_FLAG not in flags:
        return [f"precision: int8, and this machine's processor has no {INT8_FLAG}: workers like it will refuse to run"]
    return []


def processor_flags() -> frozenset[str]:
    """What this machine's processor can do, in Linux's words; empty where the system does not say."""
    if not PROCESSOR.exists():
        return frozenset()
    lines = (line.partition(":") for line in PROCESSOR.read_text().splitlines())
    return frozenset(
        word for name, _, words in lines if name.strip() in ("flags", "Features") for word in words.split()
    )


def weights_dtype(precision: str) -> torch.dtype:
    """The type in which weights are loaded, and of hidden states."""
    import torch

    return cast("torch.dtype", getattr(torch, DTYPES[precision]))


def use_fast_layers(model: nn.Module, precision: str) -> None:
    """Replace the layers of a loaded model by the fast ones for its device and precision, in place.

    Raises:
        UnusableError: the GPU has no float8 products, or the processor no int8 ones.
    """
    from rembert_ray.engine import float8, int8
    from rembert_ray.engine.compiled import compile_layers
    from rembert_ray.engine.prepacked import prepack_linears

    if precision == FLOAT8:
        float8.quantize_layers(model)
    if precision == INT8:
        int8.quantize_layers(model)
    if not prepack_linears(model):
        compile_layers(model)
