"""Parquet files of a few hundred bytes that decode to gigabytes, written byte by byte: no library would write them.

One column `text` in one row group, with a footer that claims 100 bytes. The format is Apache Parquet's (thrift, compact
protocol); field numbers are those of parquet.thrift.
"""

from __future__ import annotations

import struct

import pyarrow as pa

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
BYTE_ARRAY, FIXED = 6, 7
REQUIRED, OPTIONAL, REPEATED = 0, 1, 2
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
ZSTD, UTF8, AS_LIST = 6, 0, 3
Fields = list[tuple[int, int, object]]


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def encode(kind: int, value: object) -> bytes:
    if kind in (I32, I64):
        assert isinstance(value, int)
        return varint(value << 1)
    assert isinstance(value, bytes)
    return varint(len(value)) + value if kind == BINARY else value


def record(*fields: tuple[int, int, object]) -> bytes:
    out, last = b"", 0
    for number, kind, value in fields:
        out, last = out + bytes([(number - last) << 4 | kind]) + encode(kind, value), number
    return out + b"\0"


def items(kind: int, values: list[bytes]) -> bytes:
    assert len(values) < 15
    return bytes([len(values) << 4 | kind]) + b"".join(values)


def run(count: int, value: int) -> bytes:
    """`count` times the same number below 256, run-length encoded."""
    return varint(count << 1) + bytes([value])


def page(raw: bytes, header: tuple[int, int, object], kind: int) -> bytes:
    packed = pa.Codec("zstd").compress(raw, asbytes=True)
    return record((1, I32, kind), (2, I32, len(raw)), (3, I32, len(packed)), header) + packed


def dictionary_page(value: bytes) -> bytes:
    return page(value, (7, STRUCT, record((1, I32, 1), (2, I32, PLAIN))), kind=2)


def data_page(raw: bytes, n_values: int, encoding: int) -> bytes:
    header = record((1, I32, n_values), (2, I32, encoding), (3, I32, RLE), (4, I32, RLE))
    return page(raw, (5, STRUCT, header), kind=0)


def column(name: bytes, *, repetition: int | None = None, **numbers: int) -> bytes:
    """A line of the schema; `numbers`: type, length, children, converted."""
    places = {"type": 1, "length": 2, "children": 5, "converted": 6}
    fields: Fields = [(places[key], I32, value) for key, value in numbers.items()]
    fields += [(4, BINARY, name)] + ([(3, I32, repetition)] if repetition is not None else [])
    return record(*sorted(fields, key=lambda field: field[0]))


def parquet(schema: list[bytes], path: list[bytes], kind: int, pages: list[bytes], n_values: int, n_rows: int) -> bytes:
    body, starts = b"PAR1", []
    for content in pages:
        starts.append(len(body))
        body += content
    facts: Fields = [
        (1, I32, kind),
        (2, LIST, items(I32, [encode(I32, RLE_DICTIONARY)])),
        (3, LIST, items(BINARY, [encode(BINARY, name) for name in path])),
        (4, I32, ZSTD),
        (5, I64, n_values),
        (6, I64, 100),
        (7, I64, len(body) - 4),
        (9, I64, starts[-1]),
    ]
    facts += [(11, I64, starts[0])] if len(pages) > 1 else []
    chunk = record((2, I64, 0), (3, STRUCT, record(*facts)))
    group = record((1, LIST, items(STRUCT, [chunk])), (2, I64, 100), (3, I64, n_rows))
    footer = record((1, I32, 1), (2, LIST, items(STRUCT, schema)), (3, I64, n_rows), (4, LIST, items(STRUCT, [group])))
    return body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def repeated_text(n_bytes: int, n_rows: int) -> bytes:
    """`n_rows` times the same text of `n_bytes`, in a dictionary."""
    schema = [column(b"schema", children=1), column(b"text", type=BYTE_ARRAY, repetition=REQUIRED, converted=UTF8)]
    pages = [
        dictionary_page(struct.pack("<I", n_bytes) + b"x" * n_bytes),
        data_page(b"\1" + run(n_rows, 0), n_rows, RLE_DICTIONARY),
    ]
    return parquet(schema, [b"text"], BYTE_ARRAY, pages, n_rows, n_rows)


def wide_values(n_bytes: int, n_rows: int) -> bytes:
    """`n_rows` values of a fixed width of `n_bytes`, in a dictionary."""
    schema = [column(b"schema", children=1), column(b"text", type=FIXED, length=n_bytes, repetition=REQUIRED)]
    pages = [dictionary_page(b"\0" * n_bytes), data_page(b"\1" + run(n_rows, 0), n_rows, RLE_DICTIONARY)]
    return parquet(schema, [b"text"], FIXED, pages, n_rows, n_rows)


def one_text(n_bytes: int) -> bytes:
    """One text in one page of zeros."""
    schema = [column(b"schema", children=1), column(b"text", type=BYTE_ARRAY, repetition=REQUIRED, converted=UTF8)]
    pages = [data_page(struct.pack("<I", n_bytes) + b"\0" * n_bytes, 1, PLAIN)]
    return parquet(schema, [b"text"], BYTE_ARRAY, pages, 1, 1)


def endless_list(n_items: int, *, are_null: bool) -> bytes:
    """One row, a list of `n_items` texts."""
    schema = [
        column(b"schema", children=1),
        column(b"text", repetition=OPTIONAL, children=1, converted=AS_LIST),
        column(b"list", repetition=REPEATED, children=1),
        column(b"element", type=BYTE_ARRAY, repetition=OPTIONAL, converted=UTF8),
    ]
    repetitions = run(1, 0) + run(n_items - 1, 1)
    definitions = run(n_items, 2 if are_null else 3)
    levels = b"".join(struct.pack("<I", len(part)) + part for part in (repetitions, definitions))
    pages = [data_page(levels, n_items, PLAIN)]
    if not are_null:
        value = dictionary_page(struct.pack("<I", 8) + b"x" * 8)
        pages = [value, data_page(levels + b"\1" + run(n_items, 0), n_items, RLE_DICTIONARY)]
    return parquet(schema, [b"text", b"list", b"element"], BYTE_ARRAY, pages, n_items, 1)
