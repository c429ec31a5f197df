"""Packed batches: `encode` and `head` of every class equal what `transformers` makes of each row alone.

With the plain layers and with the CPU's prepacked ones.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.models.layout import PackedLayout
from tests.parity.oracle import (
    TOLERANCE,
    Pair,
    assert_equal,
    each_class,
    each_family,
    few,
    make_pair,
    pairs,
    random_ids,
    split_name,
)

# Equal neighbours share a call on CPU; equal rows that are no neighbours do not.
LENGTHS = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.sampled_from([[1], [1, 1, 1], [7, 7, 7], [9, 9, 4, 4, 4, 1], [3, 5, 3], [1, 12, 1]]),
)
Rows = list[torch.Tensor]


def draw_rows(pair: Pair, lengths: list[int]) -> tuple[Rows, Rows]:
    """Ids, padding among them, and segments."""
    types = [torch.randint(0, pair.config.type_vocab_size, (length,)) for length in lengths]
    return [random_ids(pair, length) for length in lengths], types


def encode_packed(pair: Pair, rows: Rows, types: Rows) -> Rows:
    """Last hidden states of each row, `[length, hidden]`, from one packed batch."""
    lengths = [len(row) for row in rows]
    layout = PackedLayout.from_lengths(lengths, torch.device("cpu"), is_causal=pair.config.is_decoder)
    return list(pair.ours.encoder.encode(torch.cat(rows), torch.cat(types), layout).split(lengths))


def apply_head(pair: Pair, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `forward` returns of a row, from its last hidden states."""
    match split_name(pair.name)[1]:
        case "Model":
            return {"last_hidden_state": hidden, "pooler_output": pair.ours.pooler(hidden[0])}
        case "ForSequenceClassification" | "ForMultipleChoice":
            return {"logits": pair.ours.head(hidden[0])}
        case "ForQuestionAnswering":
            start, end = pair.ours.head(hidden).unbind(-1)
            return {"start_logits": start, "end_logits": end}
        case _:
            return {"logits": pair.ours.head(hidden)}


def expect_alone(pair: Pair, row: torch.Tensor, types: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `transformers` returns of a row without a batch around it."""
    shape = (1, 1, -1) if pair.is_multiple_choice else (1, -1)
    found = dict(pair.theirs(input_ids=row.view(shape), token_type_ids=types.view(shape)))
    found.pop("past_key_values", None)
    return {name: value[0] for name, value in found.items()}


def assert_packed_equals_alone(pair: Pair, lengths: list[int], tolerance: float = TOLERANCE) -> None:
    rows, types = draw_rows(pair, lengths)
    for row, kinds, hidden in zip(rows, types, encode_packed(pair, rows, types), strict=True):
        expected, found = expect_alone(pair, row, kinds), apply_head(pair, hidden)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_equal(found[name], value, name, tolerance)


@each_class
@pytest.mark.parametrize("is_prepacked", [False, True], ids=["plain", "prepacked"])
@given(data=st.data())
@few(max_examples=6)
@torch.no_grad()
def test_packed_rows_equal_rows_alone(name, is_prepacked, data):
    pair = data.draw(pairs(name, has_cross_attention=False))
    if is_prepacked and not prepack_linears(pair.ours):
        pytest.skip("this torch has no oneDNN")
    assert_packed_equals_alone(pair, data.draw(LENGTHS))


@each_class
@torch.no_grad()
def test_a_row_is_the_same_whatever_shares_its_batch(name):
    pair = make_pair(name)
    rows, types = draw_rows(pair, [6, 6, 3, 9, 1])
    together = encode_packed(pair, rows, types)
    for index, hidden in enumerate(together):
        (alone,) = encode_packed(pair, [rows[index]], [types[index]])
        assert_equal(hidden, alone, "hidden states")
    backwards = encode_packed(pair, rows[::-1], types[::-1])[::-1]
    assert_equal(tuple(together), tuple(backwards), "hidden states")


@each_family
@pytest.mark.parametrize("sizes", [(48, 6, 5, 96), (192, 3, 2, 512)], ids=["deep", "wide"])
@torch.no_grad()
def test_larger_models(family, sizes):
    names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
    values = dict(zip(names, sizes, strict=True)) | {"initializer_range": sizes[0] ** -0.5}
    pair = make_pair(f"{family}Model", **values, max_position_embeddings=90)
    lengths = [61, 17, 17, 17, 9, 9, 1]
    assert_packed_equals_alone(pair, lengths)
    if prepack_linears(pair.ours):
        assert_packed_equals_alone(pair, lengths)


@pytest.mark.parametrize("lengths", [[], [3, 0, 2], [0]])
def test_an_empty_sequence_is_refused(lengths):
    with pytest.raises(ValueError, match="no empty one"):
        PackedLayout.from_lengths(lengths, torch.device("cpu"))
