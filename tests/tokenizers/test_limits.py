"""What `padding`, `truncation` and `max_length` mean together; the table is that of transformers 5.23."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from rembert_ray.tokenizers.limits import UNLIMITED, Limits, resolve_limits


@pytest.mark.parametrize(
    ("padding", "truncation", "max_length", "model", "expected"),
    [
        (False, None, None, UNLIMITED, ("do_not_pad", "do_not_truncate", None)),
        (True, True, 8, UNLIMITED, ("longest", "longest_first", 8)),
        (True, None, None, 512, ("longest", "do_not_truncate", 512)),
        ("max_length", "only_second", None, 512, ("max_length", "only_second", 512)),
        ("do_not_pad", "do_not_truncate", 8, 512, ("do_not_pad", "do_not_truncate", 8)),
        ("max_length", False, 8, UNLIMITED, ("max_length", "do_not_truncate", 8)),
    ],
)
def test_without_a_warning(padding: Any, truncation: Any, max_length: Any, model: int, expected: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limits = resolve_limits(padding, truncation, max_length, model)
    assert (limits.padding, limits.truncation, limits.max_length) == expected


@pytest.mark.parametrize(
    ("padding", "truncation", "max_length", "expected", "message"),
    [
        (False, None, 8, ("do_not_pad", "longest_first", 8), "rows are truncated to it"),
        (True, None, 8, ("longest", "do_not_truncate", 8), "does nothing"),
        (False, True, None, ("do_not_pad", "do_not_truncate", None), "nothing is truncated"),
        ("max_length", False, None, ("do_not_pad", "do_not_truncate", None), "nothing is padded"),
    ],
)
def test_with_a_warning(padding: Any, truncation: Any, max_length: Any, expected: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        limits = resolve_limits(padding, truncation, max_length, UNLIMITED)
    assert (limits.padding, limits.truncation, limits.max_length) == expected


def test_strategies_of_transformers_are_taken() -> None:
    enums = pytest.importorskip("transformers.utils")
    base = pytest.importorskip("transformers.tokenization_utils_base")
    limits = resolve_limits(enums.PaddingStrategy.MAX_LENGTH, base.TruncationStrategy.ONLY_FIRST, 8, UNLIMITED)
    assert (limits.padding, limits.truncation) == ("max_length", "only_first")


@pytest.mark.parametrize(
    ("padding", "multiple", "width"), [("longest", None, 5), ("longest", 4, 8), ("max_length", 4, 12)]
)
def test_width(padding: Any, multiple: int | None, width: int) -> None:
    assert Limits(padding, "do_not_truncate", 11, multiple).padded_width(5) == width
