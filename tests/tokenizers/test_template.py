"""Templates of both architectures, on single rows and on ragged batches."""

from __future__ import annotations

import numpy as np
import pytest

from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template

BERT = Template((1,), (2,), (2,), second_type_id=1)
ROBERTA = Template((1,), (2, 2), (2,), second_type_id=0)


def encoding(*rows: list[int]) -> Encoding:
    flat = np.array([i for row in rows for i in row], dtype=np.int32)
    offsets = np.stack([flat, flat + 1], axis=1)
    return Encoding(flat, splits([len(row) for row in rows]), offsets, word_ids=flat)


@pytest.mark.parametrize("template", [BERT, ROBERTA, BERT.bare, ROBERTA.bare])
@pytest.mark.parametrize("second", [None, [[20], [21, 22], []]])
def test_a_batch_is_its_rows(template: Template, second: list[list[int]] | None) -> None:
    first = [[10, 11], [], [12]]
    batch = template.apply(encoding(*first), None if second is None else encoding(*second))
    assert batch.special_tokens_mask is not None
    for i, text in enumerate(first):
        pair = None if second is None else second[i]
        n_pair = None if pair is None else len(pair)
        row = batch.row(i)
        assert row.ids.tolist() == template.join(text, pair)
        assert len(row.ids) == len(text) + len(pair or []) + template.size(has_pair=pair is not None)
        assert row.special_tokens_mask is not None
        assert row.special_tokens_mask.tolist() == template.is_added(len(text), n_pair)
        if pair is not None:
            assert row.type_ids is not None
            assert row.type_ids.tolist() == template.type_ids(len(text), n_pair)


def test_a_pair_of_roberta() -> None:
    row = ROBERTA.apply(encoding([10]), encoding([20]))
    assert row.ids.tolist() == [1, 10, 2, 2, 20, 2]
    assert row.type_ids is not None
    assert row.sequence_ids is not None
    assert row.word_ids is not None
    assert row.offsets is not None
    assert row.type_ids.tolist() == [0] * 6
    assert row.sequence_ids.tolist() == [-1, 0, -1, -1, 1, -1]
    assert row.word_ids.tolist() == [-1, 10, -1, -1, 20, -1]
    assert row.offsets.tolist() == [[0, 0], [10, 11], [0, 0], [0, 0], [20, 21], [0, 0]]


def test_type_ids_of_a_pair_of_bert() -> None:
    assert BERT.type_ids(2, 1) == [0, 0, 0, 0, 1, 1]
    assert BERT.bare.type_ids(2, 1) == [0, 0, 1]
