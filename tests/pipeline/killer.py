"""A tagger whose tokenizing or whose model ends the process on some texts, as a native library with a bug would."""

from __future__ import annotations

import os
import signal

from rembert_ray.tasks.tag import Tag

KILLS_ENCODE, KILLS_INFER = "zebra", "giraffe"


class KillingEncoder:
    def __init__(self, encoder, token):
        self.encoder, self.token = encoder, token

    def encode(self, ids, *arguments, **named):
        if (ids == self.token).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.encoder.encode(ids, *arguments, **named)


class KillerTag(Tag):
    """`killing_token` is the id whose sight kills the model."""

    killing_token = -1

    def encode(self, inputs, *arguments):
        if any(KILLS_ENCODE in text for text in inputs["text"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(inputs, *arguments)

    def bind(self, model):
        encoder, head = super().bind(model)
        return KillingEncoder(encoder, self.killing_token), head
