"""Run the model over an encoded shard. One of these lives in each actor and holds one model.

It restores row order, turns windows that failed and values that are not numbers into row errors, and passes on only
what decoding needs. It must not read or write storage, except for the model.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from rembert_ray.engine.flops import count_flops
from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.engine.precision import use_fast_layers, weights_dtype
from rembert_ray.engine.runner import RunResult
from rembert_ray.ragged import as_lists, splits
from rembert_ray.stages import payload
from rembert_ray.stages.envelope import Envelope, run_stage, this_process
from rembert_ray.stages.spec import JobSpec

log = logging.getLogger(__name__)

DEVICE_BROKEN = 70
NOT_A_NUMBER = "the model gave a value that is not a number"


class Infer:
    """The stage as a callable: encoded rows in, the same rows with the head's values out."""

    def __init__(self, spec: JobSpec) -> None:
        if spec.n_threads:
            torch.set_num_threads(spec.n_threads)
        device = torch.device("cuda" if spec.runs_on_gpu else "cpu")
        model = spec.task.load_model(spec.model, spec.config, weights_dtype(spec.precision), device)
        use_fast_layers(model, spec.precision)
        self.engine = spec.task.engine(model, device, spec.batch_tokens)
        self.config = spec.config

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`. A device that broke takes the process along: only a new one can use it again."""
        return run_stage(sealed, self._infer_or_exit)

    def _infer_or_exit(self, envelope: Envelope) -> Envelope:
        try:
            return self.infer(envelope)
        except torch.AcceleratorError:
            log.exception("the device broke; this actor ends so that Ray starts a new one")
            # Not sys.exit: Ray would take the exception for an answer and keep the process.
            os._exit(DEVICE_BROKEN)

    def infer(self, envelope: Envelope) -> Envelope:
        """Run one shard."""
        assert envelope.table is not None
        table = payload.set_aside(envelope.table, envelope.set_aside)
        envelope.set_aside = {}
        with envelope.timed("infer"):
            windows = payload.window_table(table)
            result = self.engine.run(windows)
            envelope.table = _add_results(table, windows, result, self.engine.token_values)
        flops = count_flops(windows.lengths, self.config)
        envelope.facts |= asdict(result.facts) | {"inferred_at": this_process(), "flops": flops}
        return envelope


def _add_results(table: pa.Table, windows: WindowTable, result: RunResult, token_values: Container[str]) -> pa.Table:
    """Values and row errors instead of ids."""
    windows_of_row = splits(payload.windows_of_rows(table))
    tokens_of_row = windows.kept_splits[windows_of_row]
    value_splits = {name: tokens_of_row if name in token_values else windows_of_row for name in result.values}
    errors = np.array(table.column(payload.ERROR).to_pylist(), dtype=object)
    row_of_window = np.repeat(np.arange(table.num_rows), np.diff(windows_of_row))
    for window, reason in result.failures.items():
        errors[row_of_window[window]] = reason
    for name, value in result.values.items():
        for row in rows_with_bad_numbers(value, value_splits[name]):
            errors[row] = errors[row] or NOT_A_NUMBER
    table = table.drop_columns([payload.IDS, payload.SECOND_STARTS, payload.KEPT, payload.ERROR])
    table = table.append_column(payload.ERROR, pa.array(errors.tolist(), pa.string()))
    for name, value in result.values.items():
        table = table.append_column(payload.VALUE + name, as_lists(value, value_splits[name]))
    return table


def rows_with_bad_numbers(values: NDArray[Any], row_splits: Long) -> list[int]:
    """Rows of which some value `[values, ...]` is NaN or infinite."""
    if not np.issubdtype(values.dtype, np.floating):
        return []
    is_bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return sorted(set((np.searchsorted(row_splits, np.flatnonzero(is_bad), side="right") - 1).tolist()))
