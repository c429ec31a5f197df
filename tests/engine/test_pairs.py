"""Windows over the longer text of a pair: nothing lost, nothing doubled, truncated as transformers does it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.documents import WindowOptions
from rembert_ray.engine.packing import build_batch
from rembert_ray.engine.pairs import window_longer
from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template
from rembert_ray.tokenizers.truncation import share_evenly, take_one_at_a_time

REMBERT, ROBERTA = Template((1,), (2,), (2,), 1), Template((1,), (2, 2), (2,), 0)


class Tokenizer:
    """All that is asked of a tokenizer here."""

    def __init__(self, template, longest_first):
        self.template = template
        self.longest_first = longest_first


TOKENIZERS = [Tokenizer(REMBERT, take_one_at_a_time), Tokenizer(ROBERTA, share_evenly)]
lengths = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


def encoding(n_tokens, base) -> Encoding:
    """Token `t` of row `r` is `base + 100 r + t`: no two are equal."""
    ids = [base + 100 * row + token for row, n in enumerate(n_tokens) for token in range(n)]
    return Encoding(np.array(ids, np.int32), splits(list(n_tokens)))


def rows_of(documents):
    """The windows of each row as lists of ids, without the template's tokens: first text, second text."""
    table, windows = documents.windows, []
    for start, end in itertools.pairwise(table.starts):
        ids = table.ids[start:end].tolist()
        windows.append(([i for i in ids if 1000 <= i < 5000], [i for i in ids if i >= 5000], ids))
    bounds = splits(documents.n_windows)
    return [windows[a:b] for a, b in itertools.pairwise(bounds)]


@given(lengths, st.sampled_from(TOKENIZERS), st.integers(3, 40), st.integers(0, 12))
def test_windows_hold_all_of_both_texts_and_share_the_overlap(pairs, tokenizer, max_tokens, overlap):
    n_first, n_second = [n for n, _ in pairs], [n for _, n in pairs]
    first, second = encoding(n_first, 1000), encoding(n_second, 5000)
    documents = window_longer(first, second, tokenizer, WindowOptions(max_tokens, overlap), segments=True)
    capacity = max(max_tokens - tokenizer.template.size(has_pair=True), 0)
    assert not documents.truncated.any()
    for row, windows in enumerate(rows_of(documents)):
        n, m = n_first[row], n_second[row]
        fits, room = n + m <= capacity, capacity - min(n, m)
        assert (row in documents.errors) == (not windows) == (not fits and room <= overlap)
        assert documents.n_tokens[row] == (n + m if windows else 0)
        assert not (fits and len(windows) != 1)
        longer, shorter = (0, 1) if n > m else (1, 0)
        whole = [first.row(row).ids.tolist(), second.row(row).ids.tolist()]
        read = []
        for number, window in enumerate(windows):
            assert window[shorter] == whole[shorter]
            assert window[2] == tokenizer.template.join(window[0], window[1])
            assert len(window[2]) <= max(max_tokens, tokenizer.template.size(has_pair=True))
            shared = overlap if number else 0
            assert window[longer][:shared] == read[len(read) - shared :]
            read += window[longer][shared:]
        assert not windows or read == whole[longer]


@given(lengths, st.sampled_from(TOKENIZERS), st.integers(4, 40))
def test_truncation_is_longest_first_of_the_tokenizer(pairs, tokenizer, max_tokens):
    n_first, n_second = (np.array(side, np.int64) for side in ([n for n, _ in pairs], [n for _, n in pairs]))
    first, second = encoding(n_first, 1000), encoding(n_second, 5000)
    options = WindowOptions(max_tokens, 8, "truncate")
    documents = window_longer(first, second, tokenizer, options, segments=True)
    capacity = max_tokens - tokenizer.template.size(has_pair=True)
    kept_first, kept_second = tokenizer.longest_first(n_first, n_second, capacity)
    for row, windows in enumerate(rows_of(documents)):
        a, b = first.row(row).ids[: kept_first[row]].tolist(), second.row(row).ids[: kept_second[row]].tolist()
        assert [window[2] for window in windows] == [tokenizer.template.join(a, b)]
    assert documents.errors == {}
    assert documents.truncated.tolist() == (n_first + n_second > capacity).tolist()
    assert documents.n_tokens.tolist() == (kept_first + kept_second).tolist()


@given(lengths, st.integers(3, 60))
def test_rows_that_are_too_long_are_errors_if_so_wished_and_the_others_are_not_touched(pairs, max_tokens):
    first, second = encoding([n for n, _ in pairs], 1000), encoding([n for _, n in pairs], 5000)
    documents = window_longer(first, second, TOKENIZERS[0], WindowOptions(max_tokens, 0, "error"), segments=True)
    for row, (n, m) in enumerate(pairs):
        assert (row in documents.errors) == (n + m + 3 > max_tokens)
        assert documents.n_windows[row] == (row not in documents.errors)
    assert not documents.truncated.any()


@pytest.mark.parametrize("segments", [True, False])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_segments_are_those_of_the_template(tokenizer, segments):
    first, second = encoding([3, 0, 5], 1000), encoding([2, 4, 0], 5000)
    table = window_longer(first, second, tokenizer, WindowOptions(20, 0), segments=segments).windows
    found = build_batch(table, np.arange(3)).token_type_ids
    expected = [i for n, m in ((3, 2), (0, 4), (5, 0)) for i in tokenizer.template.type_ids(n, m)]
    assert (found is None) == (not segments or tokenizer.template is ROBERTA)
    assert found is None or found.tolist() == expected
    assert len(table.kept) == 0


def test_a_row_whose_shorter_text_leaves_no_room_says_so():
    documents = window_longer(
        encoding([30], 1000), encoding([29], 5000), TOKENIZERS[0], WindowOptions(40, 8), segments=True
    )
    assert documents.errors == {
        0: "the shorter text has 29 tokens, which leaves 8 of 37 for the other one: not more than text.overlap, 8"
    }
