"""What is fuzzed: for each kind of file, valid examples and a function that reads any bytes as the product does.

A function returns, or raises one of the product's errors, which is caught here; anything else that it raises is a find.
Nothing here knows where the bytes come from: hypothesis (tests/faults/test_hostile.py) or atheris (`__main__`).
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rembert_ray.errors import Fault, RembertRayError, printable
from rembert_ray.fingerprint import Fingerprint
from rembert_ray.footers import InputNeeds, _summarize
from rembert_ray.manifest import load_manifest
from rembert_ray.models.config import CONFIG_FILE, AutoConfig
from rembert_ray.models.inventory import INDEX_FILE, WEIGHTS_FILE, digest_encoder, match, read_inventory
from rembert_ray.models.weight_map import HEADS, model_weights
from rembert_ray.plan import make_plan
from rembert_ray.plan_table import Plan
from rembert_ray.storage.footer_trial import FooterTrial
from rembert_ray.storage.listing import expand_input
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import read_rows
from rembert_ray.task_check import check_task
from rembert_ray.tasks.base import find_task, task_names
from rembert_ray.tokenizers.auto import check_tokenizer

REPOSITORY = Path(__file__).parents[3]
VOCABULARY = REPOSITORY / "tests" / "data" / "tiny_multilingual_8k.model"
TEXTS = ["In the sky, up above.", "", "日本語 [MASK] e\u0301 [CLS]\n\tx", "x" * 300, "\x00\ufeff👩‍👩‍👧"]


@dataclass(frozen=True)
class Target:
    """seeds: valid files; read: reads bytes as such a file, as the product does; is_native: native code parses them."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    is_native: bool = False

    def __call__(self, data: bytes) -> None:
        try:
            self.read(data)
        except RembertRayError as error:
            check_message(error)


def check_message(error: RembertRayError) -> None:
    """What a person is told must be fit to be printed, and to be read."""
    assert all(line.isprintable() and len(line) < 20_000 for line in error.lines), error.lines


@cache
def folder() -> Path:
    """A folder of this process for the file that is read, in memory where there is such a place."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="rembert-ray-fuzz-", dir=shared if shared.is_dir() else None))


@cache
def model_folder() -> Path:
    """A tiny random tagger."""
    from tests.conftest import save_random_model

    return save_random_model(folder() / "model", positions=24)


@cache
def copy_of_model(name: str) -> Path:
    """The tiny model, to break one of its files."""
    return Path(shutil.copytree(model_folder(), folder() / f"broken-{name}"))


@cache
def manifests() -> list[bytes]:
    return [path.read_bytes() for path in sorted((REPOSITORY / "manifests").glob("*.yaml"))]


def read_manifest(data: bytes) -> None:
    path = folder() / "manifest.yaml"
    path.write_bytes(data)
    manifest = load_manifest(str(path), ["output.path=/nowhere", "sharding.rows=7"])
    manifest.places()
    check_task(manifest)


@cache
def configs() -> list[bytes]:
    return [(model_folder() / CONFIG_FILE).read_bytes(), b'{"model_type": "roberta-prelayernorm", "num_labels": 3}']


def read_config_file(data: bytes) -> None:
    place = copy_of_model("config")
    (place / CONFIG_FILE).write_bytes(data)
    location = Location(str(place))
    config = AutoConfig.from_pretrained(location)
    json.dumps(config.to_dict())
    for head in HEADS:
        model_weights(config, head)
    for name in task_names():
        if name != "several":
            kind = find_task(name)
            task = kind(kind.Parameters())
            task.schema(config)
            task.faults(config)
    match(read_inventory(location), model_weights(config, "base"), config.base_model_prefix).faults("here")
    check_tokenizer(location)


@cache
def weights() -> list[bytes]:
    return [(model_folder() / WEIGHTS_FILE).read_bytes()]


@cache
def headers() -> list[bytes]:
    """The header alone, as JSON."""
    data = weights()[0]
    return [data[8 : 8 + struct.unpack("<Q", data[:8])[0]]]


def read_weights(data: bytes) -> None:
    place = copy_of_model("weights")
    (place / WEIGHTS_FILE).write_bytes(data)
    location = Location(str(place))
    config = AutoConfig.from_pretrained(location)
    inventory = read_inventory(location)
    found = match(inventory, model_weights(config, "token_classification"), config.base_model_prefix)
    if not found.faults("here"):
        from rembert_ray.models.auto import model_class

        model_class(config, "token_classification").from_pretrained(location, strict=True)
    digest_encoder(location, config)


def read_header(data: bytes) -> None:
    """A header of these bytes before data of the right size."""
    size = len(weights()[0]) - 8 - len(headers()[0])
    read_weights(struct.pack("<Q", len(data)) + data + bytes(size))


@cache
def indexes() -> list[bytes]:
    return [json.dumps({"weight_map": {"a": WEIGHTS_FILE}}).encode()]


def read_index(data: bytes) -> None:
    place = copy_of_model("index")
    (place / INDEX_FILE).write_bytes(data)
    read_inventory(Location(str(place)))


@cache
def tokenizer_configs() -> list[bytes]:
    return [(model_folder() / "tokenizer_config.json").read_bytes()]


def read_tokenizer_config(data: bytes) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        place = copy_of_model(name)
        (place / "tokenizer_config.json").unlink(missing_ok=True)
        (place / name).write_bytes(data)
        encode_texts(place)


@cache
def vocabularies() -> list[bytes]:
    return [VOCABULARY.read_bytes()]


def read_vocabulary(data: bytes) -> None:
    place = copy_of_model("vocabulary")
    (place / "sentencepiece.model").write_bytes(data)
    encode_texts(place)


@cache
def fast_tokenizers() -> list[bytes]:
    from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast

    whole = json.loads(RemBertTokenizerFast(VOCABULARY).backend_tokenizer.to_str())
    # Small, so that there are many tries a second.
    whole["model"]["vocab"] = whole["model"]["vocab"][:400]
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["id"] < 400]
    return [json.dumps(whole).encode(), json.dumps(whole | {"normalizer": None}).encode()]


def read_fast_tokenizer(data: bytes) -> None:
    place = copy_of_model("fast")
    for name in ("sentencepiece.model", "tokenizer_config.json"):
        (place / name).unlink(missing_ok=True)
    (place / "tokenizer_config.json").write_text('{"tokenizer_class": "RemBertTokenizerFast"}')
    (place / "tokenizer.json").write_bytes(data)
    encode_texts(place)


def encode_texts(place: Path) -> None:
    tokenizer = check_tokenizer(Location(str(place)))
    len(tokenizer)
    tokenizer.num_special_tokens_to_add()


@cache
def parquet_files() -> list[bytes]:
    table = pa.table(
        {
            "id": [f"{row}" for row in range(30)],
            "text": [None if row == 3 else f"the light on hill {row} " * (row % 5) for row in range(30)],
            "words": [["a", "b"] * (row % 3) for row in range(30)],
        }
    )
    files = []
    for options in ({}, {"compression": "none", "row_group_size": 10}, {"write_page_checksum": True, "version": "1.0"}):
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        files.append(sink.getvalue())
    return files


def read_parquet(data: bytes) -> None:
    path = folder() / "corpus.parquet"
    path.write_bytes(data)
    needs = InputNeeds({"text": "text"}, ["id"], max_rows=20, max_bytes=2**20)
    [file] = expand_input(str(path))
    summary = _summarize(file, Location(str(folder())), needs, trial())
    if isinstance(summary, Fault):
        assert printable(str(summary))
        return
    # What a worker reads of a file whose footer was taken.
    for first in range(0, min(sum(summary.group_rows), 100), 20):
        read_rows(file.location, first, min(20, sum(summary.group_rows) - first), ["id", "text"])


@cache
def trial() -> FooterTrial:
    """One for all tries: a child for each takes 0.2 s."""
    made = FooterTrial().__enter__()
    atexit.register(made.__exit__, None, None, None)
    return made


@cache
def plans() -> list[bytes]:
    path = folder() / "planned.parquet"
    path.write_bytes(parquet_files()[0])
    needs = InputNeeds({"text": "text"}, ["id"], max_rows=20, max_bytes=2**20)
    return [make_plan(expand_input(str(path)), Location(str(folder())), needs, Fingerprint({"a": 1})).to_bytes()]


def read_plan(data: bytes) -> None:
    for shard in Plan.from_bytes(data).iter_shards():
        assert shard.n_rows >= 0


@cache
def texts() -> list[bytes]:
    naughty = json.loads((REPOSITORY / "tests" / "data" / "blns.json").read_text())
    return [text.encode("utf-8", "surrogatepass") for text in [*naughty, *TEXTS, "e" + "\u0301" * 500, "[MASK]" * 50]]


@cache
def encode_stage() -> object:
    from rembert_ray.stages.encode import Encode
    from tests.stages.conftest import make_spec

    return Encode(make_spec(model_folder(), folder() / "out", aggregation="first"))


def read_text(data: bytes) -> None:
    """The bytes as the text of a row between two good ones; the rows must come back, each with a result."""
    import pyarrow.compute as pc

    from rembert_ray.stages import payload

    column = pa.array([b"before", data, b"after"], pa.large_binary())
    column = pa.Array.from_buffers(pa.large_string(), 3, column.buffers(), 0)
    encoded = encode_stage()._encode(pa.table({payload.INPUT + "text": column}), {})
    assert encoded.num_rows == 3
    errors = encoded[payload.ERROR].to_pylist()
    assert errors[0] is None
    assert errors[2] is None
    assert pc.is_valid(encoded[payload.ERROR])[1].as_py() == (not is_utf8(data))


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


TARGETS = {
    "yaml": Target(manifests, read_manifest),
    "config": Target(configs, read_config_file),
    "safetensors": Target(weights, read_weights),
    "header": Target(headers, read_header),
    "index": Target(indexes, read_index),
    "tokenizer_config": Target(tokenizer_configs, read_tokenizer_config),
    "plan": Target(plans, read_plan),
    "texts": Target(texts, read_text),
    "parquet": Target(parquet_files, read_parquet, is_native=True),
    "sentencepiece": Target(vocabularies, read_vocabulary, is_native=True),
    "tokenizer_json": Target(fast_tokenizers, read_fast_tokenizer, is_native=True),
}
