"""Read a shard's rows and tokenize its texts. Runs on CPU workers; imports neither torch nor ray.

A text that cannot be used becomes an `error` value here, and the row goes on without windows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rembert_ray.engine.packing import Long
from rembert_ray.errors import ShardError
from rembert_ray.plan import Shard
from rembert_ray.stages import payload
from rembert_ray.stages.envelope import Envelope, run_stage, this_process
from rembert_ray.stages.spec import TEXT, JobSpec
from rembert_ray.storage.location import locate
from rembert_ray.storage.parquet import read_rows
from rembert_ray.tasks.base import Documents
from rembert_ray.tokenizers.rembert import RemBertTokenizer


class Encode:
    """The stage as a callable: an envelope with a shard in, one with encoded rows out. Holds one tokenizer."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.tokenizer = RemBertTokenizer.from_pretrained(spec.model)

    def __call__(self, sealed: pa.Table) -> pa.Table:
        """See `run_stage`."""
        return run_stage(sealed, self.encode)

    def encode(self, envelope: Envelope) -> Envelope:
        """Read and tokenize one shard."""
        with envelope.timed("read"):
            table = self._read(envelope.shard)
        with envelope.timed("encode"):
            envelope.table = self._encode(table, envelope.set_aside)
        envelope.facts["encoded_at"] = this_process()
        envelope.set_aside = {}
        return envelope

    def _read(self, shard: Shard) -> pa.Table:
        """Kept columns, then the text under `payload.TEXT`."""
        text = self.spec.columns[TEXT]
        in_file = [name for name in self.spec.kept.names if name not in shard.partition]
        table = read_rows(locate(shard.url), shard.row_start, shard.n_rows, list(dict.fromkeys([*in_file, text])))
        if table.num_rows != shard.n_rows:
            raise ShardError(f"{shard.url}: {table.num_rows} rows at {shard.row_start}, planned {shard.n_rows}")
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for field in self.spec.kept:
            if field.name in shard.partition:
                columns[field.name] = pa.repeat(pa.scalar(shard.partition[field.name], field.type), shard.n_rows)
            else:
                columns[field.name] = table.column(field.name)
        columns[payload.TEXT] = table.column(text).cast(pa.large_string())
        return pa.table(columns)

    def _encode(self, table: pa.Table, set_aside: dict[int, str]) -> pa.Table:
        texts, errors = read_texts(table.column(payload.TEXT))
        for row, reason in set_aside.items():
            errors[row] = reason
        is_good = np.array([error is None for error in errors], dtype=np.bool_)
        good = [text for text, error in zip(texts, errors, strict=True) if error is None]
        documents = self.spec.task.encode(good, self.tokenizer, self.spec.capacity, self.spec.overlap)
        for name, column in payload.document_columns(spread_rows(documents, is_good)).items():
            table = table.append_column(name, column)
        table = table.set_column(
            table.column_names.index(payload.TEXT), payload.TEXT, pa.array(texts, pa.large_string())
        )
        return table.append_column(payload.ERROR, pa.array(errors, pa.string()))


def read_texts(column: pa.ChunkedArray) -> tuple[list[str], list[str | None]]:
    """Texts of a string column, and for each why it cannot be used (then the text is "").

    Parquet promises UTF-8 and does not check it: lone surrogates and other invalid bytes do reach us.
    """
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decode(value) for value in column.cast(pa.large_binary()).to_pylist()]
    errors = [_text_error(value) for value in values]
    return [value if isinstance(value, str) else "" for value in values], errors


def _decode(data: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error


def _text_error(value: str | UnicodeDecodeError | None) -> str | None:
    if value is None:
        return "text is null"
    if isinstance(value, UnicodeDecodeError):
        return f"text is not valid UTF-8 at byte {value.start}"
    return None


def spread_rows(documents: Documents, is_good: NDArray[np.bool_]) -> Documents:
    """Documents of the good rows as documents of all rows; the others have no windows and no tokens."""

    def spread(values: Long) -> Long:
        out = np.zeros(len(is_good), dtype=np.int64)
        out[is_good] = values
        return out

    n_windows, n_tokens = spread(documents.n_windows), spread(documents.n_tokens)
    return replace(documents, n_windows=n_windows, n_tokens=n_tokens)
