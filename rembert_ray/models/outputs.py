"""What `forward` returns; field names are Hugging Face's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class BaseModelOutputWithPooling:
    """Output of a bare encoder."""

    last_hidden_state: Tensor
    """`[batch, length, hidden]`."""
    pooler_output: Tensor | None = None
    """`[batch, hidden]`: dense and tanh over the first token."""


@dataclass
class TokenClassifierOutput:
    """Output of a token classification head."""

    logits: Tensor
    """`[batch, length, labels]`."""
    loss: Tensor | None = None
    """Scalar: cross-entropy over the labels that are not -100."""
