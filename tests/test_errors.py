"""Errors travel between processes as they are, and their messages can be printed whatever is in them."""

from __future__ import annotations

import pickle

from rembert_ray.errors import Fault, ShardError, UnusableError, nearest


def test_faults_survive_the_way_from_a_worker():
    error = UnusableError([Fault("precision", "no GPU", "set int8"), Fault("model", "no file")])
    again = pickle.loads(pickle.dumps(error))
    assert again.faults == error.faults
    assert str(again) == "precision: no GPU (set int8)\nmodel: no file"


def test_messages_are_one_line_that_can_be_printed():
    hostile = "a\nb\r\x1b[2J\x00\u2028\u202e\udc80c"
    for error in (UnusableError(Fault(hostile, hostile, hostile)), ShardError(hostile)):
        [line] = error.lines
        assert line.isprintable()
        assert "\\x1b[2J" in line
    assert ShardError("x" * 10**6).lines == ["x" * 10_000 + "..."]
    assert ShardError("ein Täßchen 日本 ' \" \\").lines == ["ein Täßchen 日本 ' \" \\"]


def test_a_word_of_a_megabyte_has_no_neighbour_in_no_time():
    assert nearest("tga" + "a" * 10**6, {"tag", "embed"}) == "known: embed, tag"
