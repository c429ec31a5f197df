"""From token labels to entities in characters, as Hugging Face's TokenClassificationPipeline decides them.

Source: transformers 5.23, `pipelines/token_classification.py`. Works on whole batches of flat tokens at once,
without special tokens. It must not know a vocabulary or a model. Two things differ from the pipeline on
purpose: an entity's word is its stretch of the original text (the pipeline joins pieces, which loses spacing
and case), and BIOES and BILOU labels are understood (the pipeline takes their S-, E-, L-, U- as part of the
name).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rembert_ray.text.words import trim_bounds

IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]
Aggregation = Literal["none", "simple", "first", "average", "max"]

AGGREGATIONS: tuple[Aggregation, ...] = ("none", "simple", "first", "average", "max")
_BEGINNING = ("B-", "S-", "U-")
_ENDING = ("E-", "L-", "S-", "U-")
_PREFIXES = ("B-", "I-", "E-", "L-", "S-", "U-")
_SPACE = ord(" ")


@dataclass(frozen=True)
class LabelScheme:
    """What each of L labels means for grouping; made once per model by `from_labels`.

    - `labels`: L names, by label id.
    - `tag`: int32 [L]; tokens of one entity have equal tags.
    - `begins`: bool [L], the label always starts an entity. `closes`: bool [L], it always ends one.
    - `group`: int32 [L], index in `group_names` of the name that an entity starting with this label gets.
    """

    labels: tuple[str, ...]
    tag: IntArray
    begins: BoolArray
    closes: BoolArray
    group: IntArray
    group_names: tuple[str, ...]

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> LabelScheme:
        """Read the scheme off the names: BIOES or BILOU if all but `O` have such prefixes, else B-, I-,
        plain.

        As in the pipeline, a name without B- or I- continues an entity of the same name, so that plain tags
        (UPOS) merge with equal neighbours, and an entity is named by what follows the first hyphen.
        """
        names = [label for label in labels if label != "O"]
        has_ends = any(name.startswith(_ENDING) for name in names)
        is_bioes = has_ends and all(name.startswith(_PREFIXES) for name in names)
        prefixes = _PREFIXES if is_bioes else ("B-", "I-")
        tags = [label[2:] if label.startswith(prefixes) else label for label in labels]
        groups = [label.split("-", 1)[-1] for label in labels]
        tag_ids = {tag: index for index, tag in enumerate(dict.fromkeys(tags))}
        group_ids = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        beginning = _BEGINNING if is_bioes else ("B-",)
        return cls(
            labels=tuple(labels),
            tag=np.array([tag_ids[tag] for tag in tags], dtype=np.int32),
            begins=np.array([label.startswith(beginning) for label in labels], dtype=np.bool_),
            closes=np.array([is_bioes and label.startswith(_ENDING) for label in labels], dtype=np.bool_),
            group=np.array([group_ids[group] for group in groups], dtype=np.int32),
            group_names=tuple(group_ids),
        )


@dataclass(frozen=True)
class Entities:
    """The m entities of n documents, in order: document i has `row_splits[i]` to `row_splits[i + 1]`.

    - `row_splits`: int64 [n + 1].
    - `name_ids`: int32 [m], indices in `names`: the labels for aggregation none, else the entity groups.
    - `scores`: float32 [m].
    - `starts`, `ends`: int32 [m], characters of the original text; never empty. An entity of nothing but pieces
      without text of their own (a lone '▁'), which the pipeline does give, is no use to anybody and is left out.
    """

    row_splits: LongArray
    name_ids: IntArray
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    starts: IntArray
    ends: IntArray

    def __len__(self) -> int:
        return len(self.name_ids)

    @property
    def groups(self) -> list[str]:
        """The name of each entity, [m]: the column `entity_group`."""
        return [self.names[name_id] for name_id in self.name_ids.tolist()]

    def words(self, texts: Sequence[str]) -> list[str]:
        """The text of each entity, [m]: the column `word`. `texts` are the n original documents."""
        rows = np.repeat(np.arange(len(self.row_splits) - 1), np.diff(self.row_splits)).tolist()
        bounds = zip(rows, self.starts.tolist(), self.ends.tolist(), strict=True)
        return [texts[row][start:end] for row, start, end in bounds]


def trim_blanks(texts: Sequence[str], row_splits: LongArray, offsets: IntArray) -> IntArray:
    """Offsets without white space at either end, int32 [t, 2]; a token of nothing else is empty, at its end.

    The `tokenizers` library counts the blank before a word to the word; SentencePiece's offsets here do not.
    """
    text_splits = np.append(0, np.cumsum([len(text) for text in texts], dtype=np.int64))
    base = np.repeat(text_splits[:-1], np.diff(row_splits))
    bounds = trim_bounds("".join(texts))
    # Neighbouring texts are one here: a token stays within its own old bounds.
    starts = np.minimum(bounds.starts[offsets[:, 0] + base] - base, offsets[:, 1])
    ends = np.maximum(bounds.ends[offsets[:, 1] + base] - base, offsets[:, 0])
    starts = np.where(starts < ends, starts, offsets[:, 1])
    return np.stack([starts, np.maximum(starts, ends)], axis=1).astype(np.int32)


def find_word_starts(
    texts: Sequence[str], row_splits: LongArray, offsets: IntArray, is_unknown: BoolArray | None = None
) -> BoolArray:
    """Which tokens begin a word, bool [t], by the pipeline's rule for tokenizers without word boundaries.

    A token begins a word when it is the first of its document, begins at character 0, is unknown
    (`is_unknown` [t]), or has a space (U+0020 only: not a line break or an ideographic space) at its start,
    before it, or between it and the token before. The pipeline looks at two characters around a start that
    includes the space; with starts after the space, the gap has to be looked at for the same answer.
    """
    counts = np.diff(row_splits)
    text_lengths = np.array([len(text) for text in texts], dtype=np.int64)
    base = np.repeat(np.cumsum(text_lengths) - text_lengths, counts)
    starts, ends = offsets[:, 0], offsets[:, 1]
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    n_spaces_before = np.zeros(len(codes) + 1, dtype=np.int64)
    np.cumsum(codes == _SPACE, out=n_spaces_before[1:])

    is_first = _first_of_rows(row_splits)
    look_from = np.maximum(starts - 1, 0)
    look_from[1:] = np.where(is_first[1:], look_from[1:], np.minimum(look_from[1:], ends[:-1]))
    look_to = np.minimum(starts + 1, np.repeat(text_lengths, counts))
    n_spaces = n_spaces_before[look_to + base] - n_spaces_before[look_from + base]
    begins: BoolArray = is_first | (starts == 0) | (n_spaces > 0)
    return begins if is_unknown is None else begins | is_unknown


def decode_entities(
    row_splits: LongArray,
    offsets: IntArray,
    label_ids: NDArray[Any],
    scores: FloatArray,
    scheme: LabelScheme,
    *,
    aggregation: Aggregation,
    word_starts: BoolArray | None = None,
    probabilities: FloatArray | None = None,
    ignore_labels: Iterable[str] = ("O",),
    only_labels: Iterable[str] | None = None,
    min_score: float = 0.0,
) -> Entities:
    """Entities of n documents from the predictions for their t tokens (no special tokens among them).

    - `row_splits` int64 [n + 1], `offsets` int32 [t, 2] in characters of each document.
    - `label_ids` [t] and `scores` [t]: the best label of each token and its probability.
    - `word_starts` bool [t] (`find_word_starts`, or the caller's own words): for first, average and max.
    - `probabilities` [t, L]: for average only; first and max need no more than the best label.
    - `ignore_labels`: dropped after grouping; full labels for none, group names otherwise. `only_labels`: the others
      are dropped too. `min_score`: so are entities that score less.

    Raises `ValueError` for an unknown aggregation, for what it needs and was not given, and for scores that
    are not numbers (overflow in the model).
    """
    _check_inputs(aggregation, scores, word_starts, probabilities)
    n_tokens = len(label_ids)
    if aggregation in ("none", "simple"):
        first_tokens = np.arange(n_tokens)
        item_labels, item_scores = np.asarray(label_ids), np.asarray(scores)
    else:
        assert word_starts is not None
        first_tokens = np.flatnonzero(word_starts | _first_of_rows(row_splits))
        item_labels, item_scores = _label_words(first_tokens, label_ids, scores, aggregation, probabilities)
    names, name_of_label = scheme.labels, np.arange(len(scheme.labels), dtype=np.int32)
    if aggregation != "none" and n_tokens:
        first_items = _first_items_of_groups(first_tokens, item_labels, scheme, row_splits)
        item_scores = _mean(item_scores, first_items)
        item_labels, first_tokens = item_labels[first_items], first_tokens[first_items]
        names, name_of_label = scheme.group_names, scheme.group

    name_ids = name_of_label[item_labels].astype(np.int32)
    starts, ends = _surface(first_tokens, offsets)
    wanted = (set(names) if only_labels is None else set(only_labels)) - set(ignore_labels)
    is_wanted = np.array([name in wanted for name in names], dtype=np.bool_)
    is_kept = is_wanted[name_ids] & (starts < ends) & (item_scores >= min_score)
    n_kept_before = np.append(0, np.cumsum(is_kept))
    return Entities(
        row_splits=n_kept_before[np.searchsorted(first_tokens, row_splits)],
        name_ids=name_ids[is_kept],
        names=names,
        scores=item_scores[is_kept].astype(np.float32),
        starts=starts[is_kept],
        ends=ends[is_kept],
    )


def label_words(
    word_of_token: LongArray,
    n_words: int,
    label_ids: NDArray[Any],
    scores: FloatArray,
    aggregation: Aggregation,
    probabilities: FloatArray | None = None,
) -> IntArray:
    """The label of each of the caller's own words, int32 [n_words]; -1 for a word without tokens.

    - `word_of_token` int64 [t], never decreasing; the others as for `decode_entities`. Without aggregation by words
      the first token decides.
    """
    firsts = np.flatnonzero(np.diff(word_of_token, prepend=-1))
    how = aggregation if aggregation in ("average", "max") else "first"
    found = np.full(n_words, -1, dtype=np.int32)
    if len(firsts):
        found[word_of_token[firsts]] = _label_words(firsts, label_ids, scores, how, probabilities)[0]
    return found


def _check_inputs(
    aggregation: Aggregation,
    scores: FloatArray,
    word_starts: BoolArray | None,
    probabilities: FloatArray | None,
) -> None:
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation is {aggregation!r}: give one of {', '.join(AGGREGATIONS)}")
    if aggregation in ("first", "average", "max") and word_starts is None:
        raise ValueError(f"aggregation {aggregation} needs word_starts")
    if aggregation == "average" and probabilities is None:
        raise ValueError("aggregation average needs the probabilities of all labels")
    is_bad = np.isnan(scores) if probabilities is None else np.isnan(probabilities).any(axis=1)
    if is_bad.any():
        raise ValueError(f"the scores of token {int(np.argmax(is_bad))} are not numbers")


def _first_of_rows(row_splits: LongArray) -> BoolArray:
    """Whether each token is the first of its document, bool [t]."""
    is_first = np.zeros(int(row_splits[-1]) + 1, dtype=np.bool_)
    is_first[row_splits[:-1]] = True
    return is_first[:-1]


def _label_words(
    firsts: LongArray,
    label_ids: NDArray[Any],
    scores: FloatArray,
    aggregation: Aggregation,
    probabilities: FloatArray | None,
) -> tuple[NDArray[Any], FloatArray]:
    """One label and score per word; `firsts` are the first tokens of the words."""
    if aggregation == "first" or not len(firsts):
        return label_ids[firsts], scores[firsts]
    if aggregation == "max":
        highest = np.maximum.reduceat(scores, firsts)
        word_of_token = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(scores)))
        candidates = np.flatnonzero(scores == highest[word_of_token])
        best = candidates[np.searchsorted(word_of_token[candidates], np.arange(len(firsts)))]
        return label_ids[best], scores[best]
    assert probabilities is not None
    averages = _mean(probabilities, firsts)
    labels = averages.argmax(axis=1)
    return labels, averages[np.arange(len(labels)), labels]


def _mean(values: FloatArray, firsts: LongArray) -> FloatArray:
    """Means over the stretches of `values` [t, ...] that begin at `firsts`."""
    counts = np.diff(firsts, append=len(values))
    sums = np.add.reduceat(values, firsts, axis=0, dtype=np.float64)
    means: FloatArray = sums / counts.reshape(-1, *[1] * (values.ndim - 1))
    return means


def _first_items_of_groups(
    first_tokens: LongArray, labels: NDArray[Any], scheme: LabelScheme, row_splits: LongArray
) -> LongArray:
    """The items (tokens or words) that begin an entity: not continued by the item before in the document."""
    tags = scheme.tag[labels]
    begins = _first_of_rows(row_splits)[first_tokens] | scheme.begins[labels]
    begins[1:] |= (tags[1:] != tags[:-1]) | scheme.closes[labels[:-1]]
    return np.flatnonzero(begins)


def _surface(firsts: LongArray, offsets: IntArray) -> tuple[IntArray, IntArray]:
    """Start and end in characters of the stretches of tokens that begin at `firsts`.

    Tokens with no text of their own count only where a stretch has no others: a '▁' after a word must not
    pull the space behind it into the entity.
    """
    n_tokens = len(offsets)
    if not len(firsts):
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
    lasts = np.append(firsts[1:], n_tokens) - 1
    has_text = offsets[:, 0] < offsets[:, 1]
    tokens = np.arange(n_tokens)
    next_with_text = np.minimum.accumulate(np.where(has_text, tokens, n_tokens)[::-1])[::-1][firsts]
    last_with_text = np.maximum.accumulate(np.where(has_text, tokens, -1))[lasts]
    begin = np.where(next_with_text <= lasts, next_with_text, firsts)
    end = np.where(last_with_text >= firsts, last_with_text, lasts)
    return offsets[begin, 0], offsets[end, 1]
