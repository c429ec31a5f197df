"""Run the model over an encoded shard. One of these lives in each actor and holds one model.

It restores row order, turns windows that failed and values that are not numbers into row errors, and passes on only
what decoding needs. It must not read or write storage, except for the model.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from rembert_ray.engine.packing import Long, WindowTable
from rembert_ray.engine.precision import prepack_linears, resolve_dtype
from rembert_ray.engine.runner import Runner, RunResult
from rembert_ray.ragged import splits
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
        model = spec.task.load_model(spec.model, spec.config, resolve_dtype(spec.precision, device), device)
        prepack_linears(model)
        encoder, head = spec.task.bind(model)
        self.runner = Runner(encoder, head, device, spec.batch_tokens)

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
            result = self.runner.run(windows)
            envelope.table = _add_results(table, windows, result, self.runner.head.per_token)
        envelope.facts |= asdict(result.facts) | {"inferred_at": this_process()}
        return envelope


def _add_results(table: pa.Table, windows: WindowTable, result: RunResult, per_token: bool) -> pa.Table:
    """Values and row errors instead of ids."""
    windows_of_row = splits(payload.windows_of_rows(table))
    value_splits = windows.kept_splits[windows_of_row] if per_token else windows_of_row
    errors = np.array(table.column(payload.ERROR).to_pylist(), dtype=object)
    row_of_window = np.repeat(np.arange(table.num_rows), np.diff(windows_of_row))
    for window, reason in result.failures.items():
        errors[row_of_window[window]] = reason
    for row in rows_with_bad_numbers(result.values, value_splits):
        errors[row] = errors[row] or NOT_A_NUMBER
    table = table.drop_columns([payload.IDS, payload.ERROR])
    table = table.append_column(payload.ERROR, pa.array(errors.tolist(), pa.string()))
    for name, column in payload.value_columns(result.values, value_splits).items():
        table = table.append_column(name, column)
    return table


def rows_with_bad_numbers(values: dict[str, NDArray[Any]], row_splits: Long) -> list[int]:
    """Rows of which some value is NaN or infinite."""
    bad: set[int] = set()
    for value in values.values():
        if np.issubdtype(value.dtype, np.floating):
            is_bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
            bad.update((np.searchsorted(row_splits, np.flatnonzero(is_bad), side="right") - 1).tolist())
    return sorted(bad)
