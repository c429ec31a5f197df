"""`init`: from a few flags, or questions at a terminal, to a manifest that `plan` takes."""

from __future__ import annotations

import os
import pty
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.starter import first_manifest as first
from rembert_ray.starter.questions import draft_by_asking
from rembert_ray.storage.location import Location
from rembert_ray.storage.put import put_new
from tests.conftest import write_corpus

TEXTS: list[str | None] = ["In the sky.", "A house in Berlin."]


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    write_corpus(tmp_path / "corpus" / "lang=en" / "a.parquet", TEXTS)
    shutil.copytree(model_folder, tmp_path / "model")
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["init", *arguments])


def flags(folder: Path, **others: str) -> list[str]:
    given = {"corpus": f"{folder}/corpus", "model": f"{folder}/model", "output": f"{folder}/out"} | others
    return [part for name, value in given.items() for part in (f"--{name}", value)]


def test_a_manifest_that_plan_takes_with_paths_below_it_relative(folder: Path) -> None:
    done = run(f"{folder}/job.yaml", *flags(folder))
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[3:] == [
        "task        tag reads text, keeps id, lang",
        f"wrote       {folder}/job.yaml",
        "checked     2 rows, 1 shard",
        f"next        rembert-ray plan {folder}/job.yaml",
    ]
    text = (folder / "job.yaml").read_text()
    assert "\nmodel: model " in text
    assert "\n  path: corpus " in text
    manifest = load_manifest(f"{folder}/job.yaml")
    assert (manifest.task, manifest.input.keep) == ("tag", ("id", "lang"))
    assert manifest.output.path == f"{folder}/out"
    assert not (folder / "out").exists()
    assert run(f"{folder}/none.yaml", *flags(folder), "--keep", "-").exit_code == 0
    assert load_manifest(f"{folder}/none.yaml").input.keep == ()


def test_every_missing_flag_is_named_at_once_and_nothing_is_written(folder: Path) -> None:
    done = run(f"{folder}/job.yaml", "--task", "tag")
    assert done.exit_code == 2
    assert [line for line in done.stderr.splitlines() if "-->" in line] == [
        " --> --corpus",
        " --> --model",
        " --> --output",
    ]
    assert not (folder / "job.yaml").exists()


def test_every_wrong_flag_is_named_at_once(folder: Path) -> None:
    wrong = flags(folder, corpus=f"{folder}/nope", task="answer", output="s4://x")
    done = run(f"{folder}/job.yaml", *wrong)
    assert done.exit_code == 2
    assert "3 faults" in done.stderr
    for what in ("nothing there", "the model cannot answer", "unknown scheme 's4'"):
        assert what in done.stderr
    wrong = run(f"{folder}/job.yaml", *flags(folder), "--keep", "idd", "--text-column", "txt")
    assert "did you mean 'id'?" in wrong.stderr
    assert "'txt' is no column for 'text'" in wrong.stderr
    assert not (folder / "job.yaml").exists()


def test_an_existing_file_is_never_overwritten_unless_asked_for(folder: Path) -> None:
    (folder / "job.yaml").write_text("mine")
    done = run(f"{folder}/job.yaml", *flags(folder))
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert (folder / "job.yaml").read_text() == "mine"
    assert run(f"{folder}/job.yaml", "--force", *flags(folder)).exit_code == 0
    draft = first.draft_from(first.Answers(f"{folder}/corpus", f"{folder}/model", f"{folder}/out"))
    with pytest.raises(UnusableError, match="is there already"):
        first.write_manifest(draft, first.locate(f"{folder}/job.yaml"))


def test_what_does_not_fit_together_shows_the_lines_of_the_new_manifest(folder: Path) -> None:
    write_corpus(folder / "corpus" / "lang=de" / "b.parquet", TEXTS)
    (folder / "model" / "sentencepiece.model").unlink()
    done = run(f"{folder}/job.yaml", *flags(folder))
    assert done.exit_code == 2
    assert f"wrote       {folder}/job.yaml" in done.stdout
    assert "SentencePiece" in done.stderr or "sentencepiece" in done.stderr


def test_questions_show_proposals_and_come_again_after_a_wrong_answer(folder: Path) -> None:
    replies = iter(
        [f"{folder}/nope", f"{folder}/corpus", f"{folder}/model", "answer", "tag", "txt", "text", "idd", "-", "/o"]
    )
    asked: list[tuple[str, str]] = []
    complaints: list[str] = []

    def ask(question: str, proposal: str) -> str:
        asked.append((question.split(":")[0].split(" ")[0], proposal))
        return next(replies)

    draft = draft_by_asking(first.Answers(), ask, lambda error: complaints.append(error.faults[0].what))
    assert (draft.task, draft.columns, draft.keep, draft.output) == ("tag", {"text": "text"}, [], "/o")
    assert asked == [
        *[("Corpus", "")] * 2,
        ("Model", ""),
        *[("Task", "tag")] * 2,
        *[("Column", "text")] * 2,
        *[("Columns", "id, lang")] * 2,
        ("Output", "output/tag"),
    ]
    assert complaints == [
        "nothing there",
        "the model cannot answer",
        "'txt' is no column for 'text'",
        "no column 'idd'",
    ]


def test_what_is_given_is_not_asked_for(folder: Path) -> None:
    def ask(question: str, proposal: str) -> str:
        raise AssertionError(question)

    answers = first.Answers(f"{folder}/corpus", f"{folder}/model", "/o", "embed", {"": "text"}, ["id"])
    draft = draft_by_asking(answers, ask, lambda error: None)
    assert (draft.task, draft.columns, draft.keep) == ("embed", {"text": "text"}, ["id"])


def test_at_a_real_terminal_enter_takes_the_proposals(folder: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        code = "import sys; from rembert_ray.cli import app; sys.argv[0] = 'rembert-ray'; app()"
        os.execv(sys.executable, [sys.executable, "-c", code, "init", f"{folder}/job.yaml", *flags(folder)])
    seen = b""
    os.write(terminal, b"\n\n\n")
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, seen.decode()
    assert b"Task (embed, tag) [tag]:" in seen
    assert b"rembert-ray plan" in seen
    assert load_manifest(f"{folder}/job.yaml").input.keep == ("id", "lang")


def test_a_corpus_and_a_model_at_a_store(folder: Path, store: Location) -> None:
    for path in (folder / "model").iterdir():
        put_new(store.child("model", path.name), path.read_bytes())
    put_new(store.child("corpus", "x.parquet"), (folder / "corpus" / "lang=en" / "a.parquet").read_bytes())
    places = {name: str(store.child(name)) for name in ("corpus", "model")}
    done = run(f"{folder}/job.yaml", *flags(folder, **places, output=str(store.child("out"))))
    assert done.exit_code == 0, done.stderr
    manifest = load_manifest(f"{folder}/job.yaml")
    assert [manifest.model, manifest.input.path] == [str(store.child("model")), str(store.child("corpus"))]
