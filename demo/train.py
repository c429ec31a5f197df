"""Trains the demo's tagger: a small RemBERT, first on masked words, then on universal parts of speech.

    python demo/train.py [--masked-steps N] [--tag-steps N] [--output demo/model]

Data: `treebanks/treebanks.parquet` (11 Universal Dependencies treebanks, 10 languages; a tenth of each is held back,
the same parallel sentences in every language) and, for the masked-word phase only, `corpus/*.parquet` without the
held-back sentences. About half an hour on one core. Prints the accuracy on the held-back sentences per language and
writes the model in Hugging Face's format (float16) with `accuracy.json` beside it.

Labels are B-<tag> on the first piece of a word and I-<tag> on the others, so that the tagger also finds the words of
Chinese and Japanese. A joined tag of a multi-word token (ADP+DET) counts as its first part.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import sentencepiece
import torch
from torch import Tensor, nn

from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.models.rembert import RemBertForTokenClassification

FOLDER = Path(__file__).parent
# https://universaldependencies.org/u/pos
TAGS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split()
LABELS = [f"{place}-{tag}" for place in "BI" for tag in TAGS]
CLS, SEP, MASK = 4, 5, 6
IGNORED = -100
MASKED_LENGTH = 128


@dataclass(frozen=True)
class Sentence:
    """A treebank sentence: word boundaries in characters, one tag a word."""

    language: str
    text: str
    starts: list[int]
    ends: list[int]
    tags: list[int]


def read_treebanks(folder: Path) -> dict[str, list[Sentence]]:
    """Sentences by split, `train` and `heldout`."""
    splits: dict[str, list[Sentence]] = {"train": [], "heldout": []}
    for row in pq.read_table(folder / "treebanks/treebanks.parquet").to_pylist():
        tags = [TAGS.index(tag.split("+")[0]) if tag.split("+")[0] in TAGS else TAGS.index("X") for tag in row["upos"]]
        splits[row["split"]].append(Sentence(row["language"], row["text"], row["starts"], row["ends"], tags))
    return splits


def read_unlabelled(folder: Path, languages: set[str]) -> list[str]:
    """Lines of corpus texts in the treebanks' languages, without the held-back sentences."""
    texts = []
    for path in sorted((folder / "corpus").glob("*.parquet")):
        if path.name == "treebank_sentences.parquet":
            continue
        for row in pq.read_table(path).to_pylist():
            if row["language"].split("-")[0] in languages:
                # By lines: a whole book in a row would make a batch of one author, again and again.
                texts += row["text"].splitlines()
    return texts


def cut_pieces(
    vocabulary: sentencepiece.SentencePieceProcessor, text: str, alpha: float
) -> tuple[list[int], list[tuple[int, int]]]:
    """Piece ids and their character ranges without the leading space; `alpha` > 0 samples a segmentation.

    Sampling segmentations is a regularizer (Kudo 2018, arXiv:1804.10959) that a few hundred sentences a language
    badly need: the model sees suffixes that the best segmentation hides inside whole words.
    """
    sampling = {"enable_sampling": True, "nbest_size": -1, "alpha": alpha} if alpha else {}
    encoded = vocabulary.encode(text, return_type="offset_mapping", **sampling)
    ranges = []
    for start, end in encoded["offsets"]:
        while start < end and text[start].isspace():
            start += 1
        ranges.append((start, end))
    return encoded["ids"], ranges


def label_pieces(sentence: Sentence, ranges: list[tuple[int, int]]) -> list[int]:
    """The label of each piece: that of the word it starts in; B- for the first piece of a word."""
    labels, word, begun = [], 0, -1
    for start, _ in ranges:
        while word + 1 < len(sentence.starts) and start >= sentence.ends[word]:
            word += 1
        labels.append(sentence.tags[word] + (len(TAGS) if begun == word else 0))
        begun = word
    return labels


def evaluate(
    model: RemBertForTokenClassification,
    vocabulary: sentencepiece.SentencePieceProcessor,
    sentences: list[Sentence],
) -> dict[str, float]:
    """Share of words with the right tag, by language and over `all`; the tag of a word is that of its first piece.

    A word in which no piece starts takes the tag of the piece that covers its first character.
    """
    right: Counter[str] = Counter()
    words: Counter[str] = Counter()
    model.eval()
    for sentence in sentences:
        ids, ranges = cut_pieces(vocabulary, sentence.text, 0.0)
        with torch.inference_mode():
            logits = model(torch.tensor([[CLS, *ids, SEP]])).logits[0, 1:-1]
        predicted = (logits.argmax(-1) % len(TAGS)).tolist()
        starts = np.array([start for start, _ in ranges])
        for start, tag in zip(sentence.starts, sentence.tags, strict=True):
            first = int(np.searchsorted(starts, start, side="left"))
            piece = first if first < len(starts) and starts[first] == start else max(first - 1, 0)
            right[sentence.language] += predicted[piece] == tag
            words[sentence.language] += 1
    scores = {language: right[language] / words[language] for language in sorted(words)}
    return {**scores, "all": right.total() / words.total()}


class MaskedWordHead(nn.Module):
    """Predicts masked pieces; tied to the word embeddings and thrown away after the first phase."""

    def __init__(self, config: RemBertConfig, words: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.input_embedding_size)
        self.norm = nn.LayerNorm(config.input_embedding_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.words = words

    def forward(self, hidden: Tensor) -> Tensor:
        """`[positions, hidden]` to logits `[positions, vocabulary]`."""
        return self.norm(nn.functional.gelu(self.dense(hidden))) @ self.words.weight.T + self.bias


def pad(rows: list[list[int]], value: int) -> Tensor:
    """Rows of different lengths as one tensor."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def masked_batches(
    vocabulary: sentencepiece.SentencePieceProcessor, texts: list[str], n_tokens: int, random: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, labels) of runs of text; 15 % of the pieces are hidden (Devlin et al. 2018: 80/10/10)."""
    while True:
        stream: list[int] = []
        for index in random.permutation(len(texts)):
            stream += [*vocabulary.encode(texts[index], enable_sampling=True, nbest_size=-1, alpha=0.3), SEP]
            while len(stream) > n_tokens:
                rows = np.array(stream[:n_tokens]).reshape(-1, MASKED_LENGTH - 1)
                ids = np.concatenate([np.full((len(rows), 1), CLS), rows], axis=1)
                del stream[:n_tokens]
                hidden = (random.random(ids.shape) < 0.15) & (ids > MASK)
                labels = np.where(hidden, ids, IGNORED)
                kind = random.random(ids.shape)
                ids = np.where(hidden & (kind < 0.8), MASK, ids)
                ids = np.where(hidden & (kind > 0.9), random.integers(MASK + 1, len(vocabulary), ids.shape), ids)
                yield torch.from_numpy(ids), torch.from_numpy(labels)


def tagged_batches(
    vocabulary: sentencepiece.SentencePieceProcessor,
    sentences: list[Sentence],
    n_tokens: int,
    random: np.random.Generator,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless (ids, mask, labels) of sentences of like length, segmented anew each time."""
    while True:
        rows = []
        for sentence in sentences:
            ids, ranges = cut_pieces(vocabulary, sentence.text, 0.3 if random.random() < 0.5 else 0.0)
            # Some pieces are hidden, so that the context must tell.
            hide = random.random(len(ids)) < 0.05
            ids = [MASK if hidden else piece for piece, hidden in zip(ids, hide, strict=True)]
            rows.append(([CLS, *ids, SEP], [IGNORED, *label_pieces(sentence, ranges), IGNORED]))
        rows.sort(key=lambda row: len(row[0]) + random.random() * 8)
        batches: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if batches[-1] and (len(batches[-1]) + 1) * len(row[0]) > n_tokens:
                batches.append([])
            batches[-1].append(row)
        for index in random.permutation(len(batches)):
            ids, labels = zip(*batches[index], strict=True)
            padded = pad(list(ids), 0)
            yield padded, (padded != 0).long(), pad(list(labels), IGNORED)


def optimizer_for(
    modules: nn.Module, rate: float, n_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a linear warm-up over a twentieth of the steps and a cosine decay to nothing."""
    optimizer = torch.optim.AdamW(modules.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    warm_up = max(1, n_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(step / n_steps, 1.0)))),
    )
    return optimizer, schedule


def train_masked_words(
    encoder: Encoder, vocabulary: sentencepiece.SentencePieceProcessor, texts: list[str], n_steps: int
) -> None:
    """First phase: guess hidden pieces."""
    head = MaskedWordHead(encoder.config, encoder.embeddings.word)
    both = nn.ModuleList([encoder, head]).train()
    optimizer, schedule = optimizer_for(both, 6e-4, n_steps)
    batches = masked_batches(vocabulary, texts, 8 * (MASKED_LENGTH - 1), np.random.default_rng(1))
    started, losses = time.monotonic(), []
    for step in range(1, n_steps + 1):
        ids, labels = next(batches)
        kept = labels != IGNORED
        hidden = encoder(ids).last_hidden_state
        loss = nn.functional.cross_entropy(head(hidden[kept]), labels[kept])
        losses.append(_take_step(loss, both, optimizer, schedule))
        if step % 100 == 0:
            _report("masked words", step, n_steps, losses[-100:], started)


def train_tags(
    model: RemBertForTokenClassification,
    vocabulary: sentencepiece.SentencePieceProcessor,
    splits: dict[str, list[Sentence]],
    n_steps: int,
) -> None:
    """Second phase: tags."""
    optimizer, schedule = optimizer_for(model, 1e-3, n_steps)
    # Many small steps: with so few sentences, batches of 2,048 tokens were still far from done after as long.
    batches = tagged_batches(vocabulary, splits["train"], 768, np.random.default_rng(2))
    started, losses = time.monotonic(), []
    for step in range(1, n_steps + 1):
        model.train()
        ids, mask, labels = next(batches)
        logits = model(ids, attention_mask=mask).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        losses.append(_take_step(loss, model, optimizer, schedule))
        if step % 500 == 0:
            accuracy = evaluate(model, vocabulary, splits["heldout"])["all"]
            _report("tags", step, n_steps, losses[-500:], started, f", held back {accuracy:.1%}")


def _report(phase: str, step: int, n_steps: int, losses: list[float], started: float, more: str = "") -> None:
    seconds = time.monotonic() - started
    print(f"{phase}: step {step}/{n_steps}, loss {np.mean(losses):.3f}{more}, {seconds:.0f} s", flush=True)


def _take_step(
    loss: Tensor, modules: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    return loss.item()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Trains the demo's tagger.")
    parser.add_argument("--masked-steps", type=int, default=2200)
    parser.add_argument("--tag-steps", type=int, default=6000)
    parser.add_argument("--output", type=Path, default=FOLDER / "model")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "model/sentencepiece.model"))
    splits = read_treebanks(FOLDER)
    config = RemBertConfig(
        vocab_size=len(vocabulary),
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        input_embedding_size=128,
        output_embedding_size=128,
        intermediate_size=1024,
        # About 1 over the root of the width: with the usual 0.02 so small a model learns much more slowly.
        initializer_range=0.05,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        bos_token_id=CLS,
        eos_token_id=SEP,
        id2label=dict(enumerate(LABELS)),
    )
    model = RemBertForTokenClassification(config)
    sentences = [sentence.text for sentence in splits["train"]]
    unlabelled = sentences + read_unlabelled(FOLDER, {sentence.language for sentence in splits["train"]})
    train_masked_words(model.encoder, vocabulary, unlabelled, arguments.masked_steps)
    train_tags(model, vocabulary, splits, arguments.tag_steps)
    model.half().save_pretrained(str(arguments.output))
    accuracy = evaluate(model.float(), vocabulary, splits["heldout"])
    for language, share in accuracy.items():
        print(f"{language:4s} {share:.1%}")
    rounded = {language: round(share, 4) for language, share in accuracy.items()}
    (arguments.output / "accuracy.json").write_text(json.dumps(rounded, indent=2) + "\n")


if __name__ == "__main__":
    main()
