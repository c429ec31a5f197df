"""Documents that all fit one window, which are taken as they are, get what they get beside one that is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.documents import Documents, LongDocuments, WindowOptions, window_texts
from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template

TEMPLATE = Template((1,), (2,), (2,), second_type_id=1)
UNKNOWN = 7


def documents(lengths: list[int], policy: LongDocuments, *, keeps_special_tokens: bool, has_offsets: bool) -> Documents:
    """Of rows whose ids are 3, 4, ... and begin anew in each row."""
    row_splits = splits(lengths)
    ids = np.concatenate([np.zeros(0, np.int32), *(np.arange(3, 3 + n, dtype=np.int32) for n in lengths)])
    offsets = np.stack([ids, ids + 1], axis=1) if has_offsets else None
    options = WindowOptions(max_tokens=12, overlap=2, long_documents=policy)
    encoding = Encoding(ids, row_splits, offsets)
    return window_texts(encoding, TEMPLATE, options, keeps_special_tokens=keeps_special_tokens, unk_id=UNKNOWN)


@pytest.mark.parametrize("policy", ["window", "truncate", "error"])
@given(lengths=st.lists(st.integers(0, 10), max_size=6), keeps=st.booleans(), has_offsets=st.booleans())
def test_a_long_neighbour_changes_nothing(
    policy: LongDocuments, lengths: list[int], keeps: bool, has_offsets: bool
) -> None:
    alone = documents(lengths, policy, keeps_special_tokens=keeps, has_offsets=has_offsets)
    beside = documents([*lengths, 25], policy, keeps_special_tokens=keeps, has_offsets=has_offsets)
    n_rows, n_tokens = len(lengths), sum(lengths)
    assert alone.n_windows.tolist() == beside.n_windows[:n_rows].tolist() == [1] * n_rows
    assert alone.n_tokens.tolist() == beside.n_tokens[:n_rows].tolist() == lengths
    assert not alone.truncated.any()
    same = beside.windows.take(np.arange(n_rows))
    for name in ("ids", "starts", "second_starts", "kept", "kept_splits"):
        assert getattr(alone.windows, name).tolist() == getattr(same, name).tolist(), name
    assert (alone.offsets is None) == (not has_offsets)
    if alone.offsets is not None and beside.offsets is not None:
        assert alone.is_unknown is not None
        assert beside.is_unknown is not None
        assert alone.offsets.tolist() == beside.offsets[:n_tokens].tolist()
        assert alone.is_unknown.tolist() == beside.is_unknown[:n_tokens].tolist()
    if policy != "window" and beside.offsets is not None:
        assert len(beside.offsets) == n_tokens + (10 if policy == "truncate" else 0)
