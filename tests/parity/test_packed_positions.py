"""RoBERTa's positions in a packed batch: a regression that others have shipped.

RoBERTa counts the ids that are not padding, from `pad_token_id + 1` on, within each sequence. A packed batch has no
padding and one row: a rule that was made for padded rows counts on from one sequence into the next, or starts at 0.
sentence-transformers 5.5.0 to 5.6.0 gave wrong vectors of RoBERTa-family models because of such a rule. A wrong
position raises nothing; it only changes numbers.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.layout import PackedLayout, PaddedLayout
from tests.parity.oracle import Pair, assert_equal, few, make_pair, transformers

PAD = 1
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make_pair("RobertaPreLayerNormModel", pad_token_id=PAD, max_position_embeddings=30)


def packed(rows: list[torch.Tensor]) -> tuple[torch.Tensor, PackedLayout]:
    return torch.cat(rows), PackedLayout.from_lengths([len(row) for row in rows], CPU)


def test_positions_count_the_ids_that_are_not_padding_in_each_sequence(pair):
    rows = [torch.tensor(ids) for ids in ([0, 7, 8, 2], [0, PAD, 9, PAD, 2], [4], [PAD], [5, 6])]
    found = pair.ours.encoder.embeddings.positions(*packed(rows))
    assert found.tolist() == [*(2, 3, 4, 5), *(2, PAD, 3, PAD, 4), 2, PAD, *(2, 3)]


@given(rows=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=6))
@few(max_examples=100)
def test_packed_positions_are_those_of_hugging_face_of_each_row(pair, rows):
    embeddings = pair.ours.encoder.embeddings
    tensors = [torch.tensor(row) for row in rows]
    found = embeddings.positions(*packed(tensors)).split([len(row) for row in rows])
    for row, positions in zip(tensors, found, strict=True):
        expected = pair.theirs.embeddings.create_position_ids_from_input_ids(row[None], PAD)[0]
        assert positions.tolist() == expected.tolist()
        assert embeddings.positions(row[None], PaddedLayout(None))[0].tolist() == expected.tolist()


@torch.no_grad()
def test_a_packed_batch_equals_single_rows_and_a_padded_batch(pair):
    torch.manual_seed(3)
    rows = [torch.randint(2, 61, (length,)) for length in (28, 5, 5, 1, 12)]
    rows[2][3] = PAD
    ids, layout = packed(rows)
    hidden = pair.ours.encoder.encode(ids, torch.zeros_like(ids), layout).split([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    in_batch = pair.theirs(padded, attention_mask=mask).last_hidden_state
    for index, row in enumerate(rows):
        assert_equal(hidden[index], pair.theirs(row[None]).last_hidden_state[0], "alone")
        assert_equal(hidden[index], in_batch[index, : len(row)], "padded")


@torch.no_grad()
def test_the_wrong_rules_would_show(pair):
    # Each would pass a test that is content with shapes, or with a batch of one row.
    rows = [torch.randint(2, 61, (length,)) for length in (6, 4)]
    ids, layout = packed(rows)
    types = torch.zeros_like(ids)
    right = pair.ours.encoder.encode(ids, types, layout)
    over_the_batch = torch.arange(10) + PAD + 1
    from_zero = torch.cat([torch.arange(6), torch.arange(4)])
    for wrong in (over_the_batch, from_zero):
        assert (pair.ours.encoder.encode(ids, types, layout, wrong) - right)[6:].abs().max() > 0.1


@torch.no_grad()
def test_the_longest_sequence_has_a_position_for_each_token_and_one_more_has_none(pair):
    assert pair.config.max_tokens == pair.config.max_position_embeddings - PAD - 1 == 28
    for model in (pair.ours, pair.theirs):
        model(torch.full((1, 28), 5))
        with pytest.raises((IndexError, RuntimeError), match="out of"):
            model(torch.full((1, 29), 5))
    ids = torch.full((29,), 5)
    with pytest.raises(IndexError):
        pair.ours.encoder.encode(ids, torch.zeros_like(ids), PackedLayout.from_lengths([29], CPU))


def test_max_tokens_of_the_published_sizes():
    assert RobertaPreLayerNormConfig(max_position_embeddings=514).max_tokens == 512
    assert RemBertConfig().max_tokens == transformers.RemBertConfig().max_position_embeddings == 512


@torch.no_grad()
def test_rembert_counts_all_tokens_from_zero():
    pair = make_pair("RemBertModel", pad_token_id=0)
    rows = [torch.tensor(ids) for ids in ([0, 7, 0, 8], [0], [9, 0])]
    assert pair.ours.encoder.embeddings.positions(*packed(rows)).tolist() == [0, 1, 2, 3, 0, 0, 1]
