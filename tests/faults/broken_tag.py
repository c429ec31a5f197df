"""A tagger that fails as native libraries and devices do, on texts that hold certain words.

`python -m tests.faults.broken_tag run MANIFEST` is the command line with this tagger in the place of `task: tag`.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rembert_ray.tasks import tag
from rembert_ray.tasks.tag import Tag

# Words that no text of the jobs has otherwise. Those of the model are looked for as tokens.
OF_ENCODE = {"segfault", "killed", "endless", "memory"}
OF_INFER = {
    "giraffe": "segfault",
    "lion": "sleep",
    "zebra": "nan",
    "tiger": "device",
    "elephant": "memory of the device",
}
LIMIT_BYTES = 256 * 1024**2


class BrokenTag(Tag):
    """`scratch` of the environment variable `BROKEN_SCRATCH` holds what is remembered from process to process."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.scratch = os.environ.get("BROKEN_SCRATCH", "")
        self.hangs_in_load = "BROKEN_LOAD" in os.environ
        self.tokens: dict[str, list[int]] = {}

    def take_tokenizer(self, folder, tokenizer):
        self.tokens = {word: tokenizer.encode(word, add_special_tokens=False) for word in OF_INFER}
        return super().take_tokenizer(folder, tokenizer)

    def encode(self, inputs, *arguments):
        for text in inputs["text"]:
            for word in OF_ENCODE:
                if word in text:
                    fail(word)
        return super().encode(inputs, *arguments)

    def load_model(self, *arguments):
        while self.hangs_in_load:
            time.sleep(1)
        return super().load_model(*arguments)

    def bind(self, model):
        encoder, head = super().bind(model)
        return BrokenEncoder(encoder, self.tokens, self.scratch), head


class BrokenEncoder:
    """An encoder that fails at the sight of some tokens."""

    def __init__(self, encoder: Any, tokens: dict[str, list[int]], scratch: str) -> None:
        self.encoder, self.tokens, self.scratch = encoder, tokens, Path(scratch)
        self.config = encoder.config

    def encode(self, ids, *arguments, **named):
        places = {OF_INFER[word]: find(ids.numpy().ravel(), sequence) for word, sequence in self.tokens.items()}
        seen = {fault for fault, where in places.items() if len(where)}
        if "device" in seen and self.is_first("device"):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if "memory of the device" in seen and ids.numel() > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for fault in seen & {"segfault", "sleep"}:
            fail(fault)
        hidden = self.encoder.encode(ids, *arguments, **named)
        hidden[places["nan"]] = float("nan")
        return hidden

    def is_first(self, name: str) -> bool:
        try:
            (self.scratch / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def find(ids: np.ndarray[Any, Any], sequence: list[int]) -> np.ndarray[Any, Any]:
    """Where a sequence of tokens begins."""
    if len(ids) < len(sequence):
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(sequence))
    return np.flatnonzero((windows == np.array(sequence)).all(axis=1))


def fail(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "endless":
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif how == "sleep":
        time.sleep(3600)
    elif how == "memory":
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        old = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + LIMIT_BYTES, old[1]))
        try:
            np.zeros(4 * LIMIT_BYTES, np.uint8)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, old)


if __name__ == "__main__":
    from rembert_ray.cli import app
    from tests.faults import broken_tag

    # Under its importable name, so that workers find the class.
    tag.Tag = broken_tag.BrokenTag  # type: ignore[misc]
    app()
