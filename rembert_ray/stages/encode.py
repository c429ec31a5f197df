"""Read a shard's rows and tokenize its texts. Runs on CPU workers; imports neither torch nor ray.

A text that cannot be used becomes an `error` value here, and the row goes on without windows.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.engine.documents import Documents
from rembert_ray.errors import ShardError
from rembert_ray.plan import Shard
from rembert_ray.stages import payload
from rembert_ray.stages.envelope import Envelope, run_stage, this_process
from rembert_ray.stages.inputs import arrow_type, cast_input, cut_into_pieces, read_inputs
from rembert_ray.stages.spec import JobSpec
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import LARGEST_TABLE_BYTES, read_rows
from rembert_ray.tokenizers.auto import AutoTokenizer
from rembert_ray.watchdog import beat


class Encode:
    """The stage as a callable: an envelope with a shard in, one with encoded rows out. Holds one tokenizer."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        # Each worker has its cores from Ray; the `tokenizers` library would take all of the machine's.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.tokenizer = AutoTokenizer.from_pretrained(spec.model)

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        return run_stage(sealed, self.encode)

    def encode(self, envelope: Envelope) -> Envelope:
        """Read and tokenize one shard."""
        with envelope.timed("read"):
            table = self._read(envelope.shard)
        with envelope.timed("encode"):
            envelope.table = self._encode_in_pieces(table, envelope.set_aside)
        envelope.facts["encoded_at"] = this_process()
        envelope.set_aside = {}
        return envelope

    def _read(self, shard: Shard) -> pa.Table:
        """Kept columns, then those that the task reads under `payload.INPUT`."""
        in_file = [name for name in self.spec.kept.names if name not in shard.partition]
        names = list(dict.fromkeys([*in_file, *self.spec.columns.values()]))
        table = read_rows(
            Location(shard.url),
            shard.row_start,
            shard.n_rows,
            names,
            planned=shard.planned,
            budget_s=self.spec.storage_s,
        )
        if table.num_rows != shard.n_rows:
            raise ShardError(f"{shard.url}: {table.num_rows} rows at {shard.row_start}, planned {shard.n_rows}")
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for field in self.spec.kept:
            if field.name in shard.partition:
                columns[field.name] = pa.repeat(pa.scalar(shard.partition[field.name], field.type), shard.n_rows)
            else:
                columns[field.name] = table.column(field.name)
        for name, column in self.spec.columns.items():
            columns[payload.INPUT + name] = cast_input(name, table.column(column))
        return pa.table(columns)

    def _encode_in_pieces(self, table: pa.Table, set_aside: dict[int, str]) -> pa.Table:
        """A few megabytes of text at a time: while a token is made it takes ten times the memory that it keeps."""
        pieces: list[pa.Table] = []
        start, n_bytes = 0, 0
        for n_rows in cut_into_pieces([table.column(payload.INPUT + name) for name in self.spec.columns]):
            beat()
            aside = {row - start: reason for row, reason in set_aside.items() if start <= row < start + n_rows}
            pieces.append(self._encode(table.slice(start, n_rows), aside))
            start, n_bytes = start + n_rows, n_bytes + pieces[-1].nbytes
            if n_bytes > LARGEST_TABLE_BYTES:
                what = f"{start} of {table.num_rows} rows have tokens of more than {LARGEST_TABLE_BYTES} bytes"
                raise ShardError(f"{what}: use smaller shards")
        return pa.concat_tables(pieces)

    def _encode(self, table: pa.Table, set_aside: dict[int, str]) -> pa.Table:
        inputs, errors = read_inputs({name: table.column(payload.INPUT + name) for name in self.spec.columns})
        if any(errors):
            for name, values in inputs.items():
                place = table.column_names.index(payload.INPUT + name)
                table = table.set_column(place, payload.INPUT + name, pa.array(values, arrow_type(name)))
        for row, reason in set_aside.items():
            errors[row] = reason
        good_rows = [row for row, error in enumerate(errors) if error is None]
        are_all_good = len(good_rows) == len(errors)
        if not are_all_good:
            inputs = {name: [values[row] for row in good_rows] for name, values in inputs.items()}
        documents = self.spec.task.encode(inputs, self.tokenizer, self.spec.windows)
        for index, reason in documents.errors.items():
            errors[good_rows[index]] = reason
        documents = documents if are_all_good else spread_rows(documents, good_rows, len(errors))
        for name, column in payload.document_columns(documents).items():
            table = table.append_column(name, column)
        return table.append_column(payload.ERROR, pa.array(errors, pa.string()))


def spread_rows(documents: Documents, good_rows: list[int], n_rows: int) -> Documents:
    """Documents of the good rows as documents of all rows; the others have no windows and no tokens."""

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(n_rows, dtype=values.dtype)
        out[good_rows] = values
        return out

    is_good = np.zeros(n_rows, dtype=np.bool_)
    is_good[good_rows] = True
    return replace(
        documents,
        n_windows=spread(documents.n_windows),
        n_tokens=spread(documents.n_tokens),
        truncated=spread(documents.truncated),
        extras={name: payload.scatter(column, is_good) for name, column in documents.extras.items()},
    )
