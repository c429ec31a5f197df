"""The language model head over a slice of the vocabulary at a time: no row of 250,000 logits is ever held.

A slice's logits are reduced while they lie in the processor's cache: to the best tokens, to the logits of tokens that
are asked for, and to their part of the normalizer (the online softmax, arXiv:1805.02867).
It must not know tasks, windows or text.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rembert_ray.models.heads import LanguageModelHead
from rembert_ray.watchdog import beat

# 8 MB of logits. Slices of 2,048 and of 4,096 tokens run alike with 256 rows or more: 210 to 214 GFLOP/s on two cores,
# where one product with all 250,300 tokens reaches 162 to 193 (benchmarks/RESULTS.md).
SLICE_TOKENS = 4096
ROWS = 512


class SlicedVocabulary(nn.Module):
    """A `LanguageModelHead` whose last product is cut into slices of the vocabulary. Inference only.

    The slices share the memory of the head's weight until `prepack_linears` replaces them one by one, so this is made
    before that: a prepacked weight cannot be cut.
    """

    def __init__(self, head: LanguageModelHead) -> None:
        super().__init__()
        self.vocab_size = head.decoder.out_features
        self.transform = nn.Sequential(head.dense, head.activation, head.norm)
        weights = torch.split(head.decoder.weight.detach(), SLICE_TOKENS)
        biases = torch.split(head.decoder.bias.detach(), SLICE_TOKENS)
        self.slices = nn.ModuleList(_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
        self.eval()

    def forward(self, hidden: Tensor) -> Tensor:
        """What the head gives: `[..., hidden]` to `[..., vocabulary]`."""
        vectors = self.transform(hidden)
        return torch.cat([part(vectors) for part in self.slices], dim=-1)

    def best(self, hidden: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """The most probable tokens at positions with hidden states `[n, hidden]`.

        Returns:
            Logarithms of their probabilities, float32 `[n, top_k]`, the highest first, and the tokens, int64.
        """
        found = [self._best(vectors, top_k) for vectors in self._vectors(hidden)]
        scores, tokens = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(tokens)

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Of tokens int64 `[n, m]` at positions with hidden states `[n, hidden]`: float32 `[n, m]`."""
        parts = zip(self._vectors(hidden), tokens.tensor_split(_n_parts(hidden)), strict=True)
        return torch.cat([self._log_probabilities(vectors, wanted) for vectors, wanted in parts])

    def _best(self, vectors: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        sums = []
        scores = vectors.new_empty(len(vectors), 0, dtype=torch.float32)
        tokens = vectors.new_empty(len(vectors), 0, dtype=torch.int64)
        for first, logits in self._logits(vectors):
            of_slice, index = logits.topk(min(top_k, logits.shape[1]))
            sums.append(_log_sum_exp(logits, of_slice[:, :1], index[:, :1]))
            both = torch.cat([scores, of_slice], dim=1)
            scores, kept = both.topk(min(top_k, both.shape[1]))
            tokens = torch.cat([tokens, index + first], dim=1).gather(1, kept)
        return scores - torch.cat(sums, dim=1).logsumexp(1, keepdim=True), tokens

    def _log_probabilities(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        sums = []
        wanted = torch.empty_like(tokens, dtype=torch.float32)
        for first, logits in self._logits(vectors):
            row, column = ((tokens >= first) & (tokens < first + logits.shape[1])).nonzero(as_tuple=True)
            wanted[row, column] = logits[row, tokens[row, column] - first]
            sums.append(_log_sum_exp(logits, *logits.max(1, keepdim=True)))
        return wanted - torch.cat(sums, dim=1).logsumexp(1, keepdim=True)

    def _vectors(self, hidden: Tensor) -> Iterator[Tensor]:
        """What the vocabulary is multiplied with, in even parts: a small last one would be slow."""
        for part in hidden.tensor_split(_n_parts(hidden)):
            yield self.transform(part)

    def _logits(self, vectors: Tensor) -> Iterator[tuple[int, Tensor]]:
        """For each slice its first token and its logits, float32 `[n, slice]`."""
        for number, part in enumerate(self.slices):
            beat()
            yield number * SLICE_TOKENS, part(vectors).float()


def _n_parts(hidden: Tensor) -> int:
    return max(-(-len(hidden) // ROWS), 1)


def _log_sum_exp(logits: Tensor, largest: Tensor, place: Tensor) -> Tensor:
    """Logarithm of the sum of the exponentials of each row, `[n, 1]`, from the largest logit and where it stands."""
    # One fused operator; `torch.logsumexp` is several, each with its own start and end of all threads.
    return largest - logits.log_softmax(1).gather(1, place)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer over these very tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
