"""How benchmarks print what they found: Markdown, and the machine that it was found on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

PACKAGES = (
    "torch",
    "ray",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "onnxruntime",
    "openvino",
    "sentence-transformers",
    "numpy",
)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A Markdown table; the first column is text, the others are numbers."""
    print("|", " | ".join(columns), "|")
    print("| ---", *["--:"] * (len(columns) - 1), sep=" | ", end=" |\n")
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)


def three(values: ArrayLike, style: str) -> str:
    """Minimum, median and maximum."""
    found = np.asarray(values, np.float64)
    return " / ".join(format(float(value), style) for value in (found.min(), np.median(found), found.max()))


def describe_machine() -> str:
    """Processor, threads, load and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    family = next((line.split(":")[1].strip() for line in lines if line.startswith("cpu family")), "")
    processor = f"{names[0]} (family {family}), {len(names)} cores" if names else platform.processor()
    kernels = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    load = f"load {os.getloadavg()[0]:.1f} before the start"
    return f"{processor}, {kernels}, {load}; Python {platform.python_version()}, {', '.join(_versions())}"


def _versions() -> Iterable[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
