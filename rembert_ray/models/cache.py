"""Keys and values of the tokens that a causal model has read, so that each step computes the new ones only."""

from __future__ import annotations

from torch import Tensor


class KeyValueCache:
    """What `forward` takes and returns as `past_key_values`; it grows in place with every forward pass.

    Buffers double when they are full, so that n steps copy O(n) and not O(n^2).
    """

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}  # layer -> [2, batch, heads, capacity, head size]
        self._lengths: dict[int, int] = {}
        self._memory: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self) -> int:
        """Tokens read so far, padding included."""
        return self._lengths.get(0, 0)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values `[batch, heads, new, head size]` of a layer.

        Returns:
            Those of all tokens so far, `[batch, heads, past + new, head size]`, as views.
        """
        past = self._lengths.get(layer, 0)
        length = past + keys.shape[2]
        buffer = self._buffers.get(layer)
        if buffer is None or buffer.shape[3] < length:
            capacity = length if buffer is None else max(length, 2 * buffer.shape[3])
            grown = keys.new_empty(2, *keys.shape[:2], capacity, keys.shape[3])
            if buffer is not None:
                grown[:, :, :, :past] = buffer[:, :, :, :past]
            buffer = self._buffers[layer] = grown
        buffer[0, :, :, past:length] = keys
        buffer[1, :, :, past:length] = values
        self._lengths[layer] = length
        return buffer[0, :, :, :length], buffer[1, :, :, :length]

    def memory(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the encoder's hidden states in a layer's cross-attention, once they are known."""
        return self._memory.get(layer)

    def set_memory(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep the keys and values of the encoder's hidden states, which do not change from step to step."""
        self._memory[layer] = (keys, values)

    def select_rows(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was: beams that go on, rows that stay. `rows` is int64 `[new batch]`."""
        for layer, buffer in self._buffers.items():
            length = self._lengths[layer]
            selected = buffer.new_empty(2, len(rows), *buffer.shape[2:])
            selected[:, :, :, :length] = buffer[:, rows, :, :length]
            self._buffers[layer] = selected
        self._memory = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._memory.items()}
