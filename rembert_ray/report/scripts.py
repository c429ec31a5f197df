"""In which scripts the texts of a corpus are written: what a page shows of a mix of languages, without guessing them.

Unicode's names of letters begin with their script (`CYRILLIC SMALL LETTER A`), up to a few of several words.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pyarrow as pa

from rembert_ray.errors import ShardError, StorageError, UnusableError
from rembert_ray.plan import Plan, Shard
from rembert_ray.stages.inputs import cast_input, read_inputs
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.location import locate
from rembert_ray.storage.parquet import read_rows

MOST_SHARDS = 32
ROWS_PER_SHARD = 50
LETTERS_PER_TEXT = 100
BUDGET_S = 10.0
N_THREADS = 8
NO_LETTERS = "none"


def scripts_of_input(plan: Plan, columns: Mapping[str, str], there: Sequence[int]) -> pa.Array:
    """The script of texts of the input, from shards spread evenly over those that are `there`.

    `columns`: the task's word for each column that it reads -> its name in the corpus. Nothing is read that is not
    allowed, and a source that is gone or has changed is left out: there may be none.
    """
    chosen = np.array(there, np.int64)[np.unique(np.linspace(0, len(there) - 1, MOST_SHARDS).astype(np.int64))]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = pool.map(lambda shard: list(_scripts(shard, columns)), plan.iter_shards(chosen))
        return pa.array([script for scripts in found for script in scripts], pa.string())


def _scripts(shard: Shard, columns: Mapping[str, str]) -> Iterator[str]:
    if AllowedRoots.given().faults("source", shard.url):
        return
    try:
        n_rows = min(shard.n_rows, ROWS_PER_SHARD)
        source = locate(shard.url)
        names = list(dict.fromkeys(columns.values()))
        table = read_rows(source, shard.row_start, n_rows, names, planned=shard.planned, budget_s=BUDGET_S)
        values, errors = read_inputs({name: cast_input(name, table[column]) for name, column in columns.items()})
    except (ShardError, StorageError, UnusableError, pa.ArrowException):
        return
    for row, error in enumerate(errors):
        if error is None:
            yield script_of(" ".join(_as_text(values[name][row]) for name in columns))


def _as_text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def script_of(text: str) -> str:
    """The script of most letters in the first part of a text: `Latin`, `Cyrillic`, `Cjk`; `none` without letters."""
    letters = (char for char in text[: 4 * LETTERS_PER_TEXT] if char.isalpha())
    counted = Counter(_script(char) for char, _ in zip(letters, range(LETTERS_PER_TEXT), strict=False))
    return counted.most_common(1)[0][0] if counted else NO_LETTERS


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    # Japanese is written in three of them at once, and Chinese characters in it would make it another language.
    name = unicodedata.name(char, NO_LETTERS).split()[0].title()
    return {"Hiragana": "Kana", "Katakana": "Kana", "Fullwidth": "Latin"}.get(name, name)
