"""A packed batch on its way to the device, and its results on their way back.

On a GPU both go through pinned memory without anybody waiting: batches are uploaded on a stream of their own by the
thread that builds them, results are copied while the next batch is computed. It must not know models or tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rembert_ray.engine.packing import Long, PackedBatch
from rembert_ray.models.layout import PackedLayout
from rembert_ray.models.narrowed_layout import NarrowedLayout

Reads = Literal["all", "kept", "first"]
"""Of which tokens a head wants hidden states: of all, of the kept ones where they are few, or of each window's first.

Where it is not all, the last layer is computed for these tokens alone.
"""


@dataclass(frozen=True)
class DeviceBatch:
    """A packed batch on the device.

    ids, token_type_ids: int64 `[tokens]`.
    kept: int64 `[kept]`, flat indices of the tokens that the task reads.
    kept_lengths: int64 `[windows]`, how many each window has.
    layout: where the windows lie.
    narrowed: which tokens the head wants, if not all.
    """

    ids: Tensor
    token_type_ids: Tensor
    kept: Tensor
    kept_lengths: Tensor
    layout: PackedLayout
    narrowed: NarrowedLayout | None

    @property
    def cu_seqlens(self) -> Tensor:
        """int32 `[windows + 1]`, where each window begins."""
        return self.layout.cu_seqlens

    def select(self, hidden: Tensor, reads: Reads) -> Tensor:
        """Of the hidden states of all tokens, those that a head wants."""
        if reads == "all":
            return hidden
        return hidden[self.kept if reads == "kept" else self.cu_seqlens[:-1].long()]


class Uploader:
    """Makes `DeviceBatch`es on one device. Used by one thread, for a consumer on another."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def upload(self, batch: PackedBatch, reads: Reads) -> Callable[[], DeviceBatch]:
        """Start the copies; the result is called by the consumer, whose work on the device then waits for them."""
        if self.stream is None:
            on_device = self._arrays(batch, reads)
            return lambda: on_device
        with torch.cuda.stream(self.stream):
            on_device = self._arrays(batch, reads)
            is_there = self.stream.record_event()

        def receive() -> DeviceBatch:
            consumer = torch.cuda.current_stream(self.device)
            consumer.wait_event(is_there)
            for tensor in _tensors(on_device):
                # Its memory must not serve the next upload before the consumer has read it.
                tensor.record_stream(consumer)
            return on_device

        return receive

    def _arrays(self, batch: PackedBatch, reads: Reads) -> DeviceBatch:
        lengths = batch.lengths.tolist()
        ids, kept = self._copy(batch.ids), self._copy(batch.kept)
        types = batch.token_type_ids
        layout = PackedLayout.from_lengths(lengths, self.device)
        narrowed = None
        if reads == "first":
            narrowed = NarrowedLayout.of(layout, lengths, layout.cu_seqlens[:-1].long(), [1] * len(lengths))
        elif reads == "kept":
            narrowed = NarrowedLayout.of(layout, lengths, kept, batch.kept_lengths.tolist())
        return DeviceBatch(
            ids=ids,
            token_type_ids=torch.zeros_like(ids) if types is None else self._copy(types),
            kept=kept,
            kept_lengths=self._copy(batch.kept_lengths),
            layout=layout,
            narrowed=narrowed,
        )

    def _copy(self, array: Long) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.stream is None:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def download(values: Mapping[str, Tensor]) -> Callable[[], dict[str, NDArray[np.generic]]]:
    """Start copying tensors from their device; the result waits for the copies and returns them as arrays."""
    on_host = {name: _start_copy(value) for name, value in values.items()}
    events = [torch.cuda.current_stream(value.device).record_event() for value in values.values() if value.is_cuda][:1]

    def receive() -> dict[str, NDArray[np.generic]]:
        for event in events:
            event.synchronize()
        return {name: value.numpy() for name, value in on_host.items()}

    return receive


def _start_copy(value: Tensor) -> Tensor:
    if not value.is_cuda:
        return value
    pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return pinned.copy_(value, non_blocking=True)


def _tensors(batch: DeviceBatch) -> list[Tensor]:
    of_layout = [batch.layout.cu_seqlens]
    if batch.narrowed is not None:
        of_layout += [batch.narrowed.rows, batch.narrowed.cu_rows]
    return [batch.ids, batch.token_type_ids, batch.kept, batch.kept_lengths, *of_layout]
