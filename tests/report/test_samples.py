"""Samples of outputs: which rows, what they were made of, and how they are drawn; on a local disk and on S3."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.report.sample_view import line_of, task_of, view, with_inputs
from rembert_ray.report.samples import parse_where, sample_rows
from rembert_ray.report.shown_terminal import draw, draw_samples, label_styles, visible
from rembert_ray.storage.location import delete, locate
from rembert_ray.text.shown import Bar, Mark, Shown
from tests.written_jobs import entities, label, write_corpus, write_job

N_FILES, N_ROWS = 4, 6
ERROR = {"error": "text is null"}


def corpus_rows(file):
    return [
        {
            "id": f"{file}-{row}",
            "lang": "de" if row % 2 else "fr",
            "file": file,
            "text": None if row == 5 else f"text {file} {row}",
        }
        for row in range(N_ROWS)
    ]


def make_job(folder, **options):
    """Four files of six rows, two shards each; the last row of each file has an error."""
    corpus, output = folder.child("corpus"), folder.child("out")
    write_corpus(corpus, {f"{file}.parquet": corpus_rows(file) for file in range(N_FILES)})
    corpora = [corpus_rows(file) for file in range(N_FILES)]
    rows = [[label(row["lang"]) if row["text"] else dict(ERROR) for row in of_file] for of_file in corpora]
    for number, row in enumerate(row for of_file in rows for row in of_file):
        row["n_tokens"] = number + 1
    options = {"keep": ["id", "lang", "file"]} | options
    plan = write_job(output, corpus, "classify", {f"{n}.parquet": rows[n] for n in range(N_FILES)}, **options)
    return output, plan


def drawn(lines, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for line in lines:
        console.print(line)
    return console.file.getvalue()


def ids(samples):
    return [sample.values["id"] for sample in samples]


def test_rows_are_spread_over_shards_and_know_where_they_came_from(store):
    output, plan = make_job(store)
    found = sample_rows(output, plan, 4)
    assert [sample.shard for sample in found] == [0, 2, 4, 7]
    assert len({sample.source for sample in found}) == 4
    for sample in with_inputs(found, plan, task_of(plan)):
        file, row = sample.values["id"].split("-")
        assert (sample.source.rsplit("/", 1)[1], sample.source_row) == (f"{file}.parquet", int(row))
        assert sample.inputs == {"text": f"text {file} {row}"}
    assert sample_rows(output, plan, 0) == []


def test_more_rows_than_shards_are_as_many_as_there_are(tmp_path):
    output, plan = make_job(locate(str(tmp_path)))
    assert len(sample_rows(output, plan, 11)) == 11
    assert len(set(ids(sample_rows(output, plan, 1000)))) == N_FILES * (N_ROWS - 1)
    one, plan = make_job(locate(str(tmp_path / "one")), rows_per_shard=6, without=[1, 2, 3])
    assert len(sample_rows(one, plan, 4)) == 4


def test_errors_are_found_wherever_they_are(tmp_path):
    output, plan = make_job(locate(str(tmp_path)))
    found = sample_rows(output, plan, 8, with_error=True)
    assert ids(found) == [f"{file}-5" for file in range(N_FILES)]
    assert line_of(found[0], plan, task_of(plan)).startswith("text is null: {'id': '0-5', 'lang': 'de', 'file': 0} (")
    (shown, *_) = with_inputs(found, plan, task_of(plan))
    assert shown.inputs is None
    assert ("error", "text is null") in view(shown, plan, task_of(plan)).facts


def test_a_seed_gives_other_rows_and_the_same_ones_again(tmp_path):
    output, plan = make_job(locate(str(tmp_path)))
    found = {seed: ids(sample_rows(output, plan, 6, seed=seed)) for seed in range(5)}
    assert found[1] == ids(sample_rows(output, plan, 6, seed=1))
    assert len({tuple(rows) for rows in found.values()}) > 1
    assert all(len(set(rows)) == 6 for rows in found.values())


def test_where_takes_rows_by_kept_and_by_written_columns(tmp_path):
    output, plan = make_job(locate(str(tmp_path)))
    assert ids(sample_rows(output, plan, 9, where={"id": "2-3"})) == ["2-3"]
    found = sample_rows(output, plan, 100, where=parse_where(["label=de", "n_tokens=8"]))
    assert ids(found) == ["1-1"]
    # One shard has more of them than its share: the others have none.
    assert len({*ids(sample_rows(output, plan, 4, where={"file": "2"}))} & {f"2-{row}" for row in range(5)}) == 4
    assert len(sample_rows(output, plan, 9, where={"file": "2"})) == 5
    assert sample_rows(output, plan, 9, where={"truncated": "true"}) == []
    with pytest.raises(UnusableError, match="did you mean 'label'"):
        sample_rows(output, plan, 9, where={"labl": "de"})
    with pytest.raises(UnusableError, match="not COLUMN=VALUE"):
        parse_where(["label"])


def test_inputs_come_from_kept_columns_else_from_the_unchanged_allowed_source_else_are_missing(tmp_path, monkeypatch):
    output, plan = make_job(locate(str(tmp_path / "a")), keep=["id", "lang", "text"])
    delete(locate(str(tmp_path / "a" / "corpus" / "0.parquet")))
    samples = sample_rows(output, plan, 1)
    assert with_inputs(samples, plan, task_of(plan))[0].inputs == {"text": samples[0].values["text"]}
    output, plan = make_job(locate(str(tmp_path / "b")))
    samples = sample_rows(output, plan, 1)
    assert with_inputs(samples, plan, task_of(plan))[0].inputs is not None
    monkeypatch.setenv("REMBERT_RAY_ALLOW_ROOTS", str(output))
    assert with_inputs(samples, plan, task_of(plan))[0].inputs is None
    monkeypatch.delenv("REMBERT_RAY_ALLOW_ROOTS")
    corpus = locate(str(tmp_path / "b" / "corpus"))
    delete(corpus.child("0.parquet"))
    assert with_inputs(samples, plan, task_of(plan))[0].inputs is None
    write_corpus(corpus, {"0.parquet": [{"id": "x", "lang": "x", "text": "another text"}] * 6})
    assert with_inputs(samples, plan, task_of(plan))[0].inputs is None
    assert "0-" in drawn(draw_samples(samples, plan, task_of(plan)))


def test_drawing_keeps_the_text_and_obeys_nothing_in_it():
    text = "a\x1b[2Jb\u202ec\x07\r\nd \u0627\u0644\u0633\u0644\u0627\u0645 \u4e16\u754c \x9b31m e\u200cf [bold]g[/bold]"
    shown = Shown(
        "ti\x1btle", text, (Mark(0, 5, "A\x1b"), Mark(2, 9, "B")), (Bar("\u4e16\x1b" * 40, 0.5),), (("k", "\x1bv"),)
    )
    found = drawn(draw(shown, label_styles([shown])))
    plain = found.replace("\n", "").replace(" ", "")
    assert "\x1b" not in found
    assert not {"\u202e", "\x07", "\r", "\x9b"} & set(found)
    for part in (
        r"a\x1b[2Jb",
        r"\u202ec\x07",
        "\u0627\u0644\u0633\u0644\u0627\u0645",
        "\u4e16\u754c",
        "e\u200cf",
        "[bold]g[/bold]",
    ):
        assert part.replace(" ", "")[:5] in plain
    assert visible("x\ty\u2028z") == "x y z"


def test_bars_stand_in_one_column_whatever_the_script():
    shown = Shown(
        bars=(
            Bar("de", 1.0),
            Bar("\u4e2d\u6587\u4e2d\u6587", 0.5),
            Bar("\u0639\u0631\u0628\u064a" * 20, 0.25),
            Bar("x", 7.0),
        )
    )
    from rich.cells import cell_len

    lines = drawn(draw(shown, {})).splitlines()
    assert {cell_len(line.split("\u2588")[0]) for line in lines} == {47}
    assert all(cell_len(line) <= 80 for line in lines)


def test_the_verb_prints_lines_json_and_what_is_wrong(tmp_path):
    output, _ = make_job(locate(str(tmp_path)))
    run = CliRunner().invoke
    done = run(app, ["sample", str(output), "--rows", "3"])
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 3)
    done = run(app, ["sample", str(output), "--rows", "2", "--json", "--where", "lang=de"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["values"]["lang"] for row in rows] == ["de", "de"]
    assert rows[0]["inputs"]["text"].startswith("text ")
    assert {"shard", "row", "source", "source_row"} <= rows[0].keys()
    done = run(app, ["sample", str(output), "--where", "lang=xx"])
    assert (done.exit_code, done.stdout, "no such row" in done.stderr) == (0, "", True)


def test_entities_are_drawn_in_their_text_with_a_legend(tmp_path):
    folder = locate(str(tmp_path))
    text = "Ann met Bob"
    write_corpus(folder.child("corpus"), {"0.parquet": [{"text": text}]})
    rows = {"0.parquet": [entities(text, (0, 3, "PER"), (8, 11, "PER"), (0, 11, "S"))]}
    plan = write_job(folder.child("out"), folder.child("corpus"), "tag", rows)
    task = task_of(plan)
    samples = with_inputs(sample_rows(folder.child("out"), plan), plan, task)
    found = drawn(draw_samples(samples, plan, task))
    assert "Ann PER 0.90  met Bob PER 0.90  S 0.90" in found
    assert found.rstrip().endswith("PER   S")


def test_vectors_name_the_nearest_row(tmp_path):
    folder = locate(str(tmp_path))
    vectors = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.1, 0.0, 0.0]]
    write_corpus(folder.child("corpus"), {"0.parquet": [{"text": f"text {n}"} for n in range(3)]})
    plan = write_job(
        folder.child("out"), folder.child("corpus"), "embed", {"0.parquet": [{"embedding": v} for v in vectors]}
    )
    task = task_of(plan)
    found = drawn(draw_samples(with_inputs(sample_rows(folder.child("out"), plan), plan, task), plan, task), 200)
    assert "nearest here 0.995 text 2" in found
    assert "nearest here 0.995 text 0" in found
