"""Frames: the YAML's own line with a mark under what is wrong; no text of anybody else's may write to the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.report.fault_frames import frames, mark_line, place_faults, print_error

ANSI = re.compile("\x1b\\[[0-9;]*m")


def framed(path: Path, text: str, *overrides: str, width: int = 80) -> list[str]:
    path.write_text(text)
    with pytest.raises(UnusableError) as caught:
        load_manifest(str(path), overrides)
    return [line.replace(f"{path.parent}/", "") for line in frames(caught.value, [str(path)], width=width)]


GOOD = "task: tag\nmodel: m\ninput: {path: c}\noutput: {path: o}\n"


def test_a_frame_shows_what_where_the_line_and_what_to_do(tmp_path: Path) -> None:
    text = GOOD + "sharding:\n  rows: -4   # too few\n  byts: 5\n"
    assert framed(tmp_path / "tag.yaml", text) == [
        "error: must be greater than 0, is -4",
        " --> tag.yaml:6:3 sharding.rows",
        "  |",
        "6 |   rows: -4   # too few",
        "  |   ^^^^^^^^",
        "",
        "error: unknown key",
        " --> tag.yaml:7:3 sharding.byts",
        "  |",
        "7 |   byts: 5",
        "  |   ^^^^^^^",
        "  = help: did you mean 'bytes'?",
        "",
        "2 faults in tag.yaml",
    ]


def test_faults_come_in_the_order_of_the_lines_and_those_without_a_line_say_where_they_are_from(tmp_path: Path) -> None:
    text = "zz: 1\n" + GOOD.replace("task: tag\n", "") + "precision: bfloat61\n"
    shown = framed(tmp_path / "tag.yaml", text, "head.x", "limits.attempts=0")
    assert [line for line in shown if line.lstrip().startswith("-->")] == [
        " --> tag.yaml task",
        " --> tag.yaml:1:1 zz",
        " --> tag.yaml:5:1 precision",
        " --> --set head.x",
        " --> --set limits.attempts",
    ]
    assert "  = help: did you mean 'bfloat16'?" in shown
    assert shown[-1] == "5 faults in tag.yaml"


def test_in_a_flow_only_the_entry_is_marked_whatever_its_neighbours_hold(tmp_path: Path) -> None:
    text = GOOD.replace("{path: c}", "{path: c, keep: ['a, b', 3], rename: {}}")
    assert framed(tmp_path / "x.yaml", text)[3:5] == [
        "3 | input: {path: c, keep: ['a, b', 3], rename: {}}",
        "  |                                 ^",
    ]


def test_carets_stand_right_behind_wide_and_combining_characters_and_tabs(tmp_path: Path) -> None:
    line = "x: {日本語: e\u0301, key: 1}"
    shown, mark = mark_line(line, line.index("key") + 1, 80)
    assert shown == line
    assert mark == " " * cell_len("x: {日本語: e, ") + "^^^^^^"
    assert framed(tmp_path / "tab.yaml", "task: tag\nmodel:\tx\n")[3:5] == ["2 | model:\\tx", "  |       ^^^"]


def test_a_line_that_is_too_long_is_cut_around_its_mark() -> None:
    line = "a" * 500 + " key: 1 " + "b" * 500
    shown, mark = mark_line(line, 502, 40)
    assert cell_len(shown) <= 40
    assert len(mark) <= 40
    assert shown.startswith("... a")
    assert shown.endswith("b ...")
    assert shown[mark.index("^") :].startswith("key: 1 b")


@pytest.mark.parametrize(
    "line",
    [
        'zz: "s3://KEY:HIDDEN@bucket/x"',
        'zz: "s3://bucket/?key=HIDDEN"',
        "aws_secret_access_key: HIDDEN",
        "Password: HIDDEN",
        "auth: {token: HIDDEN}",
    ],
)
def test_a_line_with_credentials_is_not_shown(line: str, tmp_path: Path) -> None:
    shown = "\n".join(framed(tmp_path / "x.yaml", f"{GOOD}{line}\n"))
    assert "unknown key" in shown
    assert "HIDDEN" not in shown


def test_tokens_that_are_counted_are_no_secret(tmp_path: Path) -> None:
    assert "6 |   batch_tokens: x" in framed(tmp_path / "x.yaml", f"{GOOD}resources:\n  batch_tokens: x\n")


def test_only_files_that_the_person_named_are_read(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("my diary\n")
    error = UnusableError(Fault(f"{tmp_path}/private:1:1 a", "is wrong"))
    assert "my diary" not in "\n".join(frames(error, ["other.yaml"]))
    assert "my diary" in "\n".join(frames(error, [f"{tmp_path}/private"]))


def test_a_manifest_that_is_gone_or_shorter_by_now_has_its_fault_all_the_same(tmp_path: Path) -> None:
    name = str(tmp_path / "x.yaml")
    error = UnusableError(Fault(f"{name}:7:3 a.b", "is wrong"))
    assert list(frames(error, [name]))[:3] == ["error: is wrong", f" --> {name}:7:3 a.b", ""]
    Path(name).write_text("one line")
    assert list(frames(error, [name]))[:3] == ["error: is wrong", f" --> {name}:7:3 a.b", ""]


def test_other_errors_are_one_block() -> None:
    assert list(frames(StorageError("gave out\x1b[2J"))) == ["error: gave out\\x1b[2J"]


def test_in_a_log_a_fault_is_one_line_that_can_be_grepped(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(UnusableError([Fault("x.yaml:1:1 a", "is wrong", "mend it"), Fault("m", "is gone")]), ["x.yaml"])
    assert capsys.readouterr().err == "error: x.yaml:1:1 a: is wrong (mend it)\nerror: m: is gone\n"


@given(
    st.text(max_size=300),
    st.text(max_size=50),
    st.text(max_size=50),
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 200),
    st.booleans(),
)
@example("a\x1b]0;x\x07\u202e: 1\r\n\x85\u2028 b", "\x9b2J", "\u200f", 1, 2, 40, True)
@example("\u0301" * 300, "", "", 1, 100, 40, False)
def test_a_frame_never_raises_and_never_writes_control_characters(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    what: str,
    fix: str,
    line: int,
    column: int,
    width: int,
    coloured: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "replace"))
    error = UnusableError(Fault(f"{path}:{line}:{column} {what}", what, fix))
    for shown in frames(error, [str(path)], width=width, coloured=coloured):
        assert ANSI.sub("", shown).isprintable()


@given(st.text(max_size=200), st.integers(-5, 250), st.integers(20, 120))
def test_a_cut_line_and_its_mark_fit_the_width(line: str, column: int, width: int) -> None:
    shown, mark = mark_line(line, column, width)
    assert cell_len(shown) <= width
    assert re.fullmatch(" *\\^+", mark)
    assert len(mark) <= width


def test_places_are_taken_apart_for_programs() -> None:
    faults = [
        Fault("/m/model", "a"),
        Fault("a b.yaml:12:3 head.k", "b"),
        Fault("--set x.y", "c"),
        Fault("a b.yaml", "d"),
    ]
    found = [
        (item.file, item.line, item.column, item.key, item.fault.what) for item in place_faults(faults, ["a b.yaml"])
    ]
    assert found == [
        ("a b.yaml", None, None, "", "d"),
        ("a b.yaml", 12, 3, "head.k", "b"),
        ("/m/model", None, None, "", "a"),
        ("--set", None, None, "x.y", "c"),
    ]
