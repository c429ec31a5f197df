"""Token labels become entities as the Hugging Face pipeline decides; golden cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.text.spans import (
    AGGREGATIONS,
    Aggregation,
    Entities,
    LabelScheme,
    decode_entities,
    find_word_starts,
    trim_blanks,
)

IOB = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def offsets_of(text: str, pieces: list[str]) -> np.ndarray:
    """Where `pieces` stand in `text`, one after the other; '' is an empty range at the next character."""
    pairs, end = [], 0
    for piece in pieces:
        start = text.index(piece, end) if piece else end + (text[end : end + 1] == " ")
        end = start + len(piece)
        pairs.append((start, end))
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


def decode(
    text: str,
    pieces: list[str],
    predictions: list[tuple[str, float]],
    labels: list[str],
    aggregation: Aggregation,
    ignore_labels: tuple[str, ...] = ("O",),
) -> list[tuple[str, float, str, int, int]]:
    """Entities of one text; the rest of each probability is spread over the other labels."""
    offsets = offsets_of(text, pieces)
    probabilities = np.zeros((len(pieces), len(labels)), dtype=np.float32)
    for token, (label, score) in enumerate(predictions):
        probabilities[token] = (1 - score) / (len(labels) - 1)
        probabilities[token, labels.index(label)] = score
    splits = np.array([0, len(pieces)])
    entities = decode_entities(
        splits,
        offsets,
        np.array([labels.index(label) for label, _ in predictions]),
        np.array([score for _, score in predictions], dtype=np.float32),
        LabelScheme.from_labels(labels),
        aggregation=aggregation,
        word_starts=find_word_starts([text], splits, offsets),
        probabilities=probabilities,
        ignore_labels=ignore_labels,
    )
    return as_tuples(entities, [text])


def as_tuples(entities: Entities, texts: list[str]) -> list[tuple[str, float, str, int, int]]:
    scores = [round(score, 4) for score in entities.scores.tolist()]
    return list(
        zip(
            entities.groups,
            scores,
            entities.words(texts),
            entities.starts.tolist(),
            entities.ends.tolist(),
            strict=True,
        )
    )


def test_none_gives_each_token_its_full_label() -> None:
    found = decode("Ann Lee ran", ["Ann", "Lee", "ran"], [("B-PER", 0.9), ("I-PER", 0.7), ("O", 0.8)], IOB, "none")
    assert found == [("B-PER", 0.9, "Ann", 0, 3), ("I-PER", 0.7, "Lee", 4, 7)]


def test_simple_joins_until_the_tag_changes_or_a_b_comes() -> None:
    predictions = [("B-PER", 0.9), ("I-PER", 0.7), ("B-PER", 0.6), ("I-LOC", 0.5), ("O", 0.8)]
    found = decode("Ann Lee Bob Rome x", ["Ann", "Lee", "Bob", "Rome", "x"], predictions, IOB, "simple")
    assert found == [("PER", 0.8, "Ann Lee", 0, 7), ("PER", 0.6, "Bob", 8, 11), ("LOC", 0.5, "Rome", 12, 16)]


def test_an_i_without_a_b_begins_an_entity() -> None:
    found = decode("in Rome", ["in", "Rome"], [("O", 0.9), ("I-LOC", 0.9)], IOB, "simple")
    assert found == [("LOC", 0.9, "Rome", 3, 7)]


WORD = ("microsoft co", ["micro", "soft", "co"])
DISAGREEING = [("B-PER", 0.5), ("I-LOC", 0.9), ("I-LOC", 0.6)]


def test_simple_splits_a_word_whose_pieces_disagree() -> None:
    assert [entity[:3] for entity in decode(*WORD, DISAGREEING, IOB, "simple")] == [
        ("PER", 0.5, "micro"),
        ("LOC", 0.75, "soft co"),
    ]


def test_first_takes_the_label_of_the_first_piece() -> None:
    assert decode(*WORD, DISAGREEING, IOB, "first") == [
        ("PER", 0.5, "microsoft", 0, 9),
        ("LOC", 0.6, "co", 10, 12),
    ]


def test_max_takes_the_label_of_the_surest_piece() -> None:
    assert decode(*WORD, DISAGREEING, IOB, "max") == [("LOC", 0.75, "microsoft co", 0, 12)]


def test_max_takes_the_earlier_piece_when_equal() -> None:
    found = decode("abcd", ["ab", "cd"], [("B-PER", 0.9), ("I-LOC", 0.9)], IOB, "max")
    assert found == [("PER", 0.9, "abcd", 0, 4)]


def test_average_takes_the_label_of_the_mean_probabilities() -> None:
    # I-LOC of the first word: (0.125 + 0.9) / 2 = 0.5125, against B-PER (0.5 + 0.025) / 2.
    predictions = [*DISAGREEING[:2], ("I-LOC", 0.5875)]
    assert decode(*WORD, predictions, IOB, "average") == [("LOC", 0.55, "microsoft co", 0, 12)]


def test_plain_tags_merge_with_equal_neighbours() -> None:
    tags = ["NOUN", "VERB"]
    pieces, predictions = ["dog", "house", "barks"], [("NOUN", 0.9), ("NOUN", 0.7), ("VERB", 0.8)]
    for aggregation in ("simple", "first", "average", "max"):
        found = decode("dog house barks", pieces, predictions, tags, aggregation)
        assert found == [("NOUN", 0.8, "dog house", 0, 9), ("VERB", 0.8, "barks", 10, 15)]


BIOES = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
BILOU = ["O", "B-PER", "I-PER", "L-PER", "U-PER"]


@pytest.mark.parametrize("labels", [BIOES, BILOU])
def test_single_and_end_labels_close_an_entity(labels: list[str]) -> None:
    _, begin, inside, end, single = labels
    text, pieces = "a b c d e f", list("abcdef")
    predictions = [(label, 0.9) for label in (begin, inside, end, single, single, inside)]
    found = [entity[2] for entity in decode(text, pieces, predictions, labels, "simple")]
    assert found == ["a b c", "d", "e", "f"]


def test_end_prefixes_are_part_of_the_name_in_other_schemes() -> None:
    # A plain tag `S-x` beside unprefixed tags is no BIOES: equal neighbours merge, as in the pipeline.
    found = decode("a b", ["a", "b"], [("S-x", 0.9), ("S-x", 0.9)], ["S-x", "NOUN"], "simple")
    assert found == [("x", 0.9, "a b", 0, 3)]


def test_ignored_labels_are_groups_except_for_none() -> None:
    pieces, predictions = ["Ann", "x"], [("B-PER", 0.9), ("O", 0.9)]
    assert decode("Ann x", pieces, predictions, IOB, "simple", ("PER",)) == [("O", 0.9, "x", 4, 5)]
    assert len(decode("Ann x", pieces, predictions, IOB, "simple", ("B-PER",))) == 2
    assert decode("Ann x", pieces, predictions, IOB, "none", ("B-PER",)) == [("O", 0.9, "x", 4, 5)]


def test_lone_space_pieces_do_not_widen_an_entity() -> None:
    text, pieces = "日本 語 x", ["", "日本", "", "語", "", "x"]
    predictions = [("I-LOC", 0.8)] * 5 + [("O", 0.8)]
    assert decode(text, pieces, predictions, IOB, "simple") == [("LOC", 0.8, "日本 語", 0, 4)]


def test_an_entity_of_only_a_lone_space_piece_is_left_out() -> None:
    assert decode("a 日", ["a", "", "日"], [("O", 0.9), ("B-LOC", 0.8), ("O", 0.9)], IOB, "simple") == []


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("ab cd", ["a", "b", "cd"], [True, False, True]),
        ("ab\ncd", ["ab", "cd"], [True, False]),  # only U+0020 counts, as in the pipeline
        ("ab \ncd", ["ab", "cd"], [True, True]),
        ("ab\n cd", ["ab", "cd"], [True, True]),
        ("ab\u3000cd", ["ab", "cd"], [True, False]),
        ("a, b", ["a", ",", "b"], [True, False, True]),
        ("日", ["", "日"], [True, True]),
        ("a 日", ["a", "", "日"], [True, True, True]),
        (" a", ["a"], [True]),
    ],
)
def test_word_starts(text: str, pieces: list[str], expected: list[bool]) -> None:
    starts = find_word_starts([text], np.array([0, len(pieces)]), offsets_of(text, pieces))
    assert starts.tolist() == expected


def test_an_unknown_token_begins_a_word() -> None:
    starts = find_word_starts(["abc"], np.array([0, 3]), offsets_of("abc", list("abc")), np.array([False, True, False]))
    assert starts.tolist() == [True, True, False]


def test_word_starts_do_not_look_across_documents() -> None:
    texts, splits = ["ab", "", " cd", "e"], np.array([0, 2, 2, 3, 4])
    offsets = np.array([[0, 1], [1, 2], [1, 3], [0, 1]], dtype=np.int32)
    assert find_word_starts(texts, splits, offsets).tolist() == [True, False, True, True]


def test_entities_do_not_cross_documents() -> None:
    texts, splits = ["Ann", "", "Lee", "x"], np.array([0, 1, 1, 2, 3])
    offsets = np.array([[0, 3], [0, 3], [0, 1]], dtype=np.int32)
    entities = decode_entities(
        splits,
        offsets,
        np.array([2, 2, 0]),
        np.array([0.9, 0.8, 0.7], dtype=np.float32),
        LabelScheme.from_labels(IOB),
        aggregation="simple",
    )
    assert entities.row_splits.tolist() == [0, 1, 1, 2, 2]
    assert as_tuples(entities, texts) == [("PER", 0.9, "Ann", 0, 3), ("PER", 0.8, "Lee", 0, 3)]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("n_documents", [0, 3])
def test_documents_without_tokens(aggregation: Aggregation, n_documents: int) -> None:
    entities = decode_entities(
        np.zeros(n_documents + 1, dtype=np.int64),
        np.zeros((0, 2), dtype=np.int32),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.float32),
        LabelScheme.from_labels(IOB),
        aggregation=aggregation,
        word_starts=np.zeros(0, dtype=np.bool_),
        probabilities=np.zeros((0, 5), dtype=np.float32),
    )
    assert len(entities) == 0
    assert entities.row_splits.tolist() == [0] * (n_documents + 1)


def test_what_is_missing_or_broken_is_refused() -> None:
    scheme = LabelScheme.from_labels(IOB)
    splits, offsets = np.array([0, 1]), np.array([[0, 1]], dtype=np.int32)
    ids, good, bad = np.array([1]), np.array([0.5], dtype=np.float32), np.array([np.nan], dtype=np.float32)
    with pytest.raises(ValueError, match="needs word_starts"):
        decode_entities(splits, offsets, ids, good, scheme, aggregation="first")
    with pytest.raises(ValueError, match="needs the probabilities"):
        decode_entities(splits, offsets, ids, good, scheme, aggregation="average", word_starts=np.array([True]))
    with pytest.raises(ValueError, match="one of none, simple"):
        decode_entities(splits, offsets, ids, good, scheme, aggregation="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="token 0 are not numbers"):
        decode_entities(splits, offsets, ids, bad, scheme, aggregation="simple")


def reference(
    text: str, offsets: np.ndarray, probabilities: np.ndarray, labels: list[str], aggregation: str
) -> list[tuple[str, float, int, int]]:
    """The pipeline's rules for one text, token by token, as plainly as they can be written."""
    words: list[list[int]] = []
    for token, (start, _) in enumerate(offsets.tolist()):
        joins = start > 0 and " " not in text[start - 1 : start + 1]
        if aggregation in ("none", "simple") or not (words and joins):
            words.append([token])
        else:
            words[-1].append(token)
    items = []
    for word in words:
        if aggregation == "average":
            row = probabilities[word].mean(axis=0)
        elif aggregation == "max":
            row = probabilities[max(word, key=lambda token: probabilities[token].max())]
        else:
            row = probabilities[word[0]]
        items.append((labels[int(row.argmax())], float(row.max()), offsets[word[0], 0], offsets[word[-1], 1]))
    if aggregation == "none":
        return [item for item in items if item[0] != "O"]
    groups: list[list[tuple[str, float, int, int]]] = []
    for item in items:
        tag = item[0][2:] if item[0][:2] in ("B-", "I-") else item[0]
        last = groups[-1][-1][0] if groups else ""
        last_tag = last[2:] if last[:2] in ("B-", "I-") else last
        if groups and tag == last_tag and not item[0].startswith("B-"):
            groups[-1].append(item)
        else:
            groups.append([item])
    found = [
        (
            group[0][0].split("-", 1)[-1],
            float(np.mean([item[1] for item in group])),
            group[0][2],
            group[-1][3],
        )
        for group in groups
    ]
    return [entity for entity in found if entity[0] != "O"]


@given(
    words=st.lists(st.lists(st.text("ab,", min_size=1, max_size=3), min_size=1, max_size=3), max_size=5),
    aggregation=st.sampled_from(AGGREGATIONS),
    labels=st.sampled_from([IOB, ["NOUN", "VERB", "O"], ["O", "I-A", "A", "B-A-x"]]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_rules_token_by_token(
    words: list[list[str]], aggregation: Aggregation, labels: list[str], seed: int
) -> None:
    text = " ".join("".join(word) for word in words)
    pieces = [piece for word in words for piece in word]
    offsets = offsets_of(text, pieces)
    logits = np.random.default_rng(seed).normal(size=(len(pieces), len(labels)))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    splits = np.array([0, len(pieces)])
    entities = decode_entities(
        splits,
        offsets,
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
        LabelScheme.from_labels(labels),
        aggregation=aggregation,
        word_starts=find_word_starts([text], splits, offsets),
        probabilities=probabilities,
    )
    expected = reference(text, offsets, probabilities, labels, aggregation)
    assert [(group, start, end) for group, _, _, start, end in as_tuples(entities, [text])] == [
        (group, start, end) for group, _, start, end in expected
    ]
    np.testing.assert_allclose(entities.scores, [score for _, score, _, _ in expected], rtol=1e-6)


@given(st.lists(st.text(alphabet="ab \u3000\n\u00e9", max_size=12), min_size=1, max_size=4), st.data())
def test_trimmed_offsets_hold_no_blank_at_either_end(texts, data):
    rows, counts = [], []
    for text in texts:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
        bounds = [0, *cuts, len(text)]
        rows += list(itertools.pairwise(bounds))
        counts.append(len(bounds) - 1)
    row_splits = np.append(0, np.cumsum(counts))
    found = trim_blanks(texts, row_splits, np.array(rows, np.int32).reshape(-1, 2))
    of_text = np.repeat(np.arange(len(texts)), counts)
    for text_index, (start, end), (left, right) in zip(of_text, rows, found.tolist(), strict=True):
        text = texts[text_index]
        assert text[left:right] == text[start:end].strip()
        assert start <= left <= right <= end
