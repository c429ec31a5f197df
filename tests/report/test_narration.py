"""Events are one line each, can be read back, and hold what was said; words stay words."""

from __future__ import annotations

import io
import json
import logging
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rembert_ray.errors import Fault, StalledError, UnusableError
from rembert_ray.report.narration import EventFormatter, Narrator, Style, format_event


def told(style: Style, *, width: int = 40) -> tuple[Narrator, io.StringIO]:
    stream = io.StringIO()
    return Narrator(Console(file=stream, width=width), style, fixed={"run": "ab12"}), stream


def test_words_are_told_as_they_are():
    narrator, stream = told("words", width=10)
    narrator.say("resume", "resume      3 shards are there already", shards=3)
    assert stream.getvalue() == "resume      3 shards are there already\n"


def test_an_event_is_one_line_of_keys_and_values():
    narrator, stream = told("keyvalue")
    narrator.say("resume", "resume      3 shards are there already", shards=3, eta_s=None, share=0.25, is_live=False)
    (line,) = stream.getvalue().splitlines()
    values = dict(word.split("=", 1) for word in shlex.split(line))
    assert values.pop("time").startswith("20")
    assert values == {
        "level": "info",
        "event": "resume",
        "run": "ab12",
        "shards": "3",
        "share": "0.25",
        "is_live": "false",
        "message": "3 shards are there already",
    }


def test_json_is_asked_for():
    narrator, stream = told("json")
    narrator.say("plan", "plan        ab: 5 rows\ninput       1 file", rows=5)
    (line,) = stream.getvalue().splitlines()
    values = json.loads(line)
    assert (values["event"], values["rows"], values["message"]) == ("plan", 5, "ab: 5 rows")
    narrator.say("end", "next        rembert-ray sample out")
    assert json.loads(stream.getvalue().splitlines()[1])["message"] == "rembert-ray sample out"


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_can_write_a_line_or_a_key_of_its_own(message: str, value: str) -> None:
    for style in ("keyvalue", "json"):
        line = format_event(style, "info", "x", {"value": value, "message": message})  # type: ignore[arg-type]
        assert len(line.splitlines()) == 1
    line = format_event("keyvalue", "info", "x", {"value": value, "message": message})
    decoder, position, keys = json.JSONDecoder(), 0, []
    while position < len(line):
        key, _, _ = line[position:].partition("=")
        keys.append(key)
        position += len(key) + 1
        if line[position : position + 1] == '"':
            _, end = decoder.raw_decode(line, position)
            position = end + 1
        else:
            position += len(line[position:].split(" ")[0]) + 1
    assert keys == ["time", "level", "event", "value", "message"]


def test_each_fault_is_an_event():
    narrator, stream = told("json")
    narrator.tell_error(
        UnusableError([Fault("a.yaml:1:2 task", "unknown task", "did you mean 'tag'?"), Fault("b", "c")])
    )
    narrator.tell_error(StalledError("no shard came back"))
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["where"], first["fix"], first["exit_code"]) == (
        "fault",
        "a.yaml:1:2 task",
        "did you mean 'tag'?",
        2,
    )
    assert first["message"] == "a.yaml:1:2 task: unknown task (did you mean 'tag'?)"
    assert second["message"] == "b: c"
    assert (third["event"], third["level"], third["exit_code"]) == ("error", "error", 6)


@pytest.mark.parametrize("style", ["keyvalue", "json"])
def test_a_workers_traceback_is_one_line(style: Style) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
        record = logging.LogRecord("rembert_ray.stages", logging.ERROR, "f", 1, "shard %d failed", (7,), caught)
    line = EventFormatter(style, {"run": "ab12"}).format(record)
    assert len(line.splitlines()) == 1
    assert "shard 7 failed" in line
    assert "ValueError" in line
