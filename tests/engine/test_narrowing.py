"""Documents of which less is read keep their rows, and the windows that are left keep their tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rembert_ray.engine.documents import WindowOptions, window_texts
from rembert_ray.engine.narrowing import drop_empty_windows, keep_tokens, refuse_rows, sum_of_rows
from rembert_ray.ragged import splits
from rembert_ray.tokenizers.encoding import Encoding
from rembert_ray.tokenizers.template import Template

TEMPLATE = Template((100,), (101,), (101,), 1)
ROWS = st.lists(st.lists(st.integers(0, 3), max_size=15), max_size=5)


def cut(rows):
    ids = np.array([token for row in rows for token in row], dtype=np.int32)
    encoding = Encoding(ids, splits([len(row) for row in rows]))
    return window_texts(encoding, TEMPLATE, WindowOptions(6, 1), keeps_special_tokens=False, unk_id=99)


@given(ROWS, st.booleans())
def test_each_token_of_an_id_is_kept_once_in_a_window_that_holds_it(rows, is_id):
    documents = keep_tokens(cut(rows), 2, is_id=is_id)
    dropped = drop_empty_windows(documents)
    for found in (documents, dropped):
        table = found.windows
        window = np.repeat(np.arange(len(table)), np.diff(table.kept_splits))
        tokens = table.ids[table.starts[:-1][window] + table.kept].tolist()
        assert tokens == [token for row in rows for token in row if (token == 2) == is_id]
        n_kept = sum_of_rows(np.diff(table.kept_splits), found.n_windows)
        assert n_kept.tolist() == [sum((token == 2) == is_id for token in row) for row in rows]
    assert (np.diff(dropped.windows.kept_splits) > 0).all()


def test_rows_with_an_error_have_no_windows_and_keep_their_first_reason():
    documents = refuse_rows(cut([[1] * 9, [2, 2], [3]]), {0: "first"})
    again = refuse_rows(documents, {0: "second", 2: "third"})
    assert again.errors == {0: "first", 2: "third"}
    assert again.n_windows.tolist() == [0, 1, 0]
    assert again.n_tokens.tolist() == [0, 2, 0]
    assert again.windows.ids.tolist() == [100, 2, 2, 101]
    assert refuse_rows(again, {}).windows.ids.tolist() == again.windows.ids.tolist()
