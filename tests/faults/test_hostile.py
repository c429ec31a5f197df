"""Files, manifests and texts of somebody who means harm: a defined result or an error of ours, in bounded memory.

About half a minute as it stands. By hand: REMBERT_RAY_HOSTILE_EXAMPLES=10000 pytest tests/faults/test_hostile.py, and
guided by coverage with `python -m tests.faults.fuzz TARGET`. What native code parses is read in a child process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from rembert_ray.storage.memory_limit import limited_growth
from tests.faults.fuzz.targets import REPOSITORY, TARGETS

N_EXAMPLES = int(os.environ.get("REMBERT_RAY_HOSTILE_EXAMPLES", "150"))
GROWTH_BYTES = 3 * 2**30
NATIVE = [name for name, target in TARGETS.items() if target.is_native]

hostile = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def bounded_memory():
    """An explosion is a MemoryError here, which no target lets pass."""
    with limited_growth(GROWTH_BYTES):
        yield


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "cut", "double", "flip"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(max_size=8) | st.sampled_from([b"\x00" * 64, b"\xff" * 8, b"\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf"]),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for how, place, new in edits:
        at = int(place * len(data))
        behind = at + {"replace": len(new), "cut": 1 + 37 * len(new), "flip": 1}.get(how, 0)
        middle = {"cut": b"", "double": data[at : at + 200], "flip": bytes(b ^ 1 for b in data[at : at + 1])}.get(
            how, new
        )
        data = data[:at] + middle + data[behind:]
    return data


# Strategies give functions that make the bytes: hypothesis keeps what it has drawn, and files are large.
Made = Callable[[], bytes]


def bytes_like(name: str) -> st.SearchStrategy[Made]:
    """Valid files of a target with a few bytes changed, or any bytes."""
    seeds = st.deferred(lambda: st.sampled_from(TARGETS[name].seeds()))
    changed = st.builds(lambda seed, edits: partial(edited, seed, edits), seeds, EDITS)
    return changed | st.binary(max_size=64).map(lambda data: lambda: data)


ODD_VALUES = st.sampled_from(
    [None, True, -1, 0, 2**31, 10**18, 10**63, 10**80, 1e308, 0.5, "", "x", "\x00\x1b[2J\n", "é" * 5000, "../../x"]
    + [[], {}, [[]], [1, "a"], {"a": 1}, {"0": "a", "00": "b"}, list(range(1000)), {"content": 1}, float("nan")]
)
JSON_VALUES = st.recursive(
    ODD_VALUES | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def changed_json(seed: bytes, changes: list[tuple[float, float, Any]]) -> bytes:
    """The object with values at some places (or the places themselves) exchanged."""
    value = json.loads(seed)
    for first, second, new in changes:
        parent: Any = value
        keys = list(parent)
        child = parent[keys[int(first * len(keys))]] if keys else None
        if isinstance(child, dict) and child and second > 0.5:
            parent, keys = child, list(child)
        if keys:
            parent[keys[int(second * len(keys))]] = deepcopy(new)
    return json.dumps(value).encode()


def json_like(name: str) -> st.SearchStrategy[Made]:
    """The valid file of a target with some of its values exchanged for odd ones."""
    share = st.floats(0, 1, exclude_max=True)
    changes = st.lists(st.tuples(share, share, JSON_VALUES), min_size=1, max_size=4)
    seeds = st.deferred(lambda: st.sampled_from(seeds_of(name)))
    return st.builds(lambda seed, made: partial(changed_json, seed, made), seeds, changes)


def seeds_of(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


@pytest.mark.parametrize("name", ["config", "header", "index", "tokenizer_config"])
@given(data=st.data())
@hostile
def test_json_files(name, data):
    TARGETS[name](data.draw(json_like(name) | bytes_like(name))())


@pytest.mark.parametrize("name", ["safetensors", "plan", "texts", "yaml"])
@given(data=st.data())
@hostile
def test_changed_bytes(name, data):
    TARGETS[name](data.draw(bytes_like(name))())


SNIPPETS = st.sampled_from(
    ["head: &a {b: *a}", "<<: {task: embed}", "task: !!python/object/apply:os.system [id]", "text: {overlap: 1e400}"]
    + [
        "head: " + "{a: " * 200,
        "head: " + "[" * 5000,
        "? - a\n: b",
        "task: tag\ntask: tag",
        "\ufefftask: x",
        "---",
        "...",
    ]
    + ["model: ~nobody/x", "model: s3://K:S@b/x", "model: 's3://b/%2e%2e/x'", 'model: "a\\0b"', "input: {path: '/*'}"]
    + ["sharding: {rows: 0x" + "f" * 60 + "}", "limits: {stall_s: .nan}", "head: {top_k: " + "9" * 5000 + "}", "a:\r b"]
    + [
        "model: " + "x" * 100_000,
        "'" + "k" * 50_000 + "': 1",
        "%YAML 1.1",
        "%TAG ! tag:x,2000:",
        "head: !<x> 1",
        "a: |\n" * 50,
    ]
    + [f"k{number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, 4)]
)


@given(
    st.deferred(lambda: st.sampled_from(seeds_of("yaml"))),
    st.lists(st.tuples(st.integers(0, 60), SNIPPETS), max_size=5),
)
@example(b"", [(0, "a: " * 100_000)])
@example(b"", [(0, "- " * 100_000)])
@example(b"", [(0, "a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 400)))])
@hostile
def test_manifests_with_what_yaml_can_do(seed, snippets):
    lines = seed.decode().split("\n")
    for place, snippet in snippets:
        lines.insert(place, snippet)
    TARGETS["yaml"]("\n".join(lines).encode())


@given(
    st.text(st.characters(codec=None), max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from(["\u0301", "\x00", "\u200b", "\ufeff", "[MASK]", "ﷺ", "\U000e0001", "\u202e"]).flatmap(
        lambda unit: st.integers(1, 20_000).map(lambda n: (unit * n).encode())
    )
    | st.integers(1, 200_000).map(lambda n: b"x" * n)
)
@hostile
def test_texts_that_no_one_writes(data):
    TARGETS["texts"](data)


@pytest.mark.parametrize("name", NATIVE)
def test_what_native_code_parses(name, tmp_path):
    """The child's last line names the file that it died of; the seed that made it is in its name."""
    seeds, first = seeds_of(name), random.randrange(10**9)
    made = []
    for seed in range(first, first + N_EXAMPLES):
        chance = random.Random(seed)
        kinds = ["replace", "insert", "cut", "double", "flip"]
        edits = [
            (chance.choice(kinds), chance.random() ** 0.5, chance.randbytes(4)) for _ in range(chance.randint(1, 4))
        ]
        made.append(tmp_path / f"{name}-{seed}")
        made[-1].write_bytes(edited(chance.choice(seeds), edits))
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.faults.fuzz", name, *map(str, made)]
    seconds = 300 + N_EXAMPLES
    child = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=False)
    assert child.returncode == 0, child.stdout[-200:] + child.stderr[-3000:]
