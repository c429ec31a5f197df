"""A sample of a plan's rows, tokenized as the job would do it: for the estimate before a job starts.

The rows are taken at places that lie evenly over the rows of the plan, so the same plan gives the same sample. Each
place is a few rows in a stretch, fewer where rows are large. It must not import torch or ray, nor write anything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from rembert_ray.engine.packing import find_equal
from rembert_ray.errors import ShardError
from rembert_ray.plan import Plan, Shard
from rembert_ray.stages import payload
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.spec import JobSpec

N_PLACES = 64
ROWS_A_PLACE = 32
BYTES_A_PLACE = 256 * 1024
SAMPLE_BUDGET_S = 20.0
PADDED_BATCH = 32

Indices = npt.NDArray[np.int64]


@dataclass
class TokenSample:
    """What was found; lists have an entry for each place that was read, in the order of reading.

    n_places: how many were chosen; less were read where the time was over or a file could not be read (`unread`).
    is_census: whether the places hold every row.
    tokens, plan_bytes, n_rows: of each place: tokens of all windows, special tokens included; its share of the plan's
        bytes (see `Plan.shards`) and its rows.
    row_tokens: of each row, special tokens not counted, 0 for a row with an error; row_windows: likewise.
    n_computed: tokens that are left when equal windows of a place count once.
    n_padded: tokens that a job with padded batches of `PADDED_BATCH` windows would compute.
    """

    n_places: int
    is_census: bool
    tokens: list[int] = field(default_factory=list)
    plan_bytes: list[float] = field(default_factory=list)
    n_rows: list[int] = field(default_factory=list)
    row_tokens: list[int] = field(default_factory=list)
    row_windows: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    n_computed: int = 0
    n_padded: int = 0
    elapsed_s: float = 0.0

    @property
    def n_tokens(self) -> int:
        """Tokens of all windows."""
        return sum(self.tokens)

    def add(self, envelope: Envelope, plan_bytes: float) -> None:
        """Count the encoded rows of one place."""
        assert envelope.table is not None
        table, windows = envelope.table, payload.window_table(envelope.table)
        self.tokens.append(len(windows.ids))
        self.plan_bytes.append(plan_bytes)
        self.n_rows.append(table.num_rows)
        self.row_tokens += table.column(payload.N_TOKENS).to_pylist()
        self.row_windows += payload.windows_of_rows(table).tolist()
        self.errors.update(error for error in table.column(payload.ERROR).to_pylist() if error is not None)
        lengths, (first, _) = windows.lengths, find_equal(windows)
        self.n_computed += int(lengths[first].sum())
        for start in range(0, len(lengths), PADDED_BATCH):
            batch = lengths[start : start + PADDED_BATCH]
            self.n_padded += int(batch.max()) * len(batch)


def take_sample(
    spec: JobSpec, plan: Plan, shards: Indices, *, n_places: int = N_PLACES, budget_s: float = SAMPLE_BUDGET_S
) -> TokenSample:
    """Read and tokenize rows of these shards; at least one place, and no new one after `budget_s` seconds.

    Raises:
        StorageError: the store gives out. (What is wrong with a file is in `TokenSample.unread`.)
    """
    places = list(choose_places(plan, shards, n_places))
    is_census = sum(place.n_rows for place, _ in places) == int(plan.shards["n_rows"].to_numpy()[shards].sum())
    sample = TokenSample(len(places), is_census)
    encode = Encode(replace(spec, storage_s=min(spec.storage_s, budget_s)))
    started = time.monotonic()
    for number in spread_order(len(places)):
        if sample.tokens and time.monotonic() - started > budget_s:
            sample.is_census = False
            break
        place, plan_bytes = places[number]
        try:
            sample.add(encode.encode(Envelope(place)), plan_bytes)
        except ShardError as error:
            sample.is_census = False
            sample.unread.append(str(error))
    sample.elapsed_s = time.monotonic() - started
    return sample


def choose_places(plan: Plan, shards: Indices, n_places: int) -> Iterator[tuple[Shard, float]]:
    """Parts of these shards, at even distances in rows, and their share of the plan's bytes; all rows if they are few.

    How many rows a place has depends on the plan only, never on the rows: else large rows would count too often.
    """
    rows, n_bytes = (plan.shards[name].to_numpy()[shards].astype(np.int64) for name in ("n_rows", "bytes"))
    ends = np.cumsum(rows)
    total = int(ends[-1])
    if total <= n_places * ROWS_A_PLACE:
        chosen = [(n, start, ROWS_A_PLACE) for n in range(len(shards)) for start in range(0, rows[n], ROWS_A_PLACE)]
    else:
        middles = (np.arange(n_places) * 2 + 1) * total // (2 * n_places)
        numbers = np.searchsorted(ends, middles, side="right")
        sizes = np.clip(BYTES_A_PLACE * rows // np.maximum(n_bytes, 1), 1, ROWS_A_PLACE)[numbers]
        offsets = np.minimum(middles - (ends - rows)[numbers], np.maximum(rows[numbers] - sizes, 0))
        chosen = list(zip(numbers.tolist(), offsets.tolist(), sizes.tolist(), strict=True))
    whole = plan.iter_shards(shards[[number for number, _, _ in chosen]])
    for shard, (number, offset, size) in zip(whole, chosen, strict=True):
        n_rows = min(int(size), shard.n_rows - offset)
        place = replace(shard, row_start=shard.row_start + offset, n_rows=n_rows)
        yield place, float(n_bytes[number]) * n_rows / shard.n_rows


def spread_order(n: int) -> list[int]:
    """0 to n - 1 so that each beginning of the list lies evenly over all (the van der Corput sequence)."""
    n_bits = max(n - 1, 1).bit_length()
    return [i for i in (int(format(k, f"0{n_bits}b")[::-1], 2) for k in range(2**n_bits)) if i < n]
