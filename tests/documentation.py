"""What README.md and docs/ tell people to type, and a workspace in which it can be run without Ray.

Commands that only look are run as they are. `run`, `make demo` and `python jobs/...` are parsed by the real parser;
then their job is done by its stages in this process, and closed by the job itself, which finds every part there. What
needs a cluster, a bucket or an hour is only parsed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from typer.testing import CliRunner

from rembert_ray import entry
from rembert_ray.check import check_job
from rembert_ray.cli import app
from rembert_ray.job import run_checked
from rembert_ray.job_spec import job_spec
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import freeze_plan
from rembert_ray.report.narration import Narrator
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import Write

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
CORPUS = "treebank_sentences.parquet"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n)+)")
INLINE = re.compile(r"`(rembert-ray [^`]+)`")
PROGRAMS = {"make", "rembert-ray", "python", "ray"}
# Not ours to test: a shell's own words and what everybody has.
NOT_OURS = {"export", "curl", "pip"}
STANDS_FOR = {"OUTPUT": "out/tag", "EARLIER": "out/tag", "OLD": "out/tag", "NEW": "out/tag"}
STANDS_FOR |= {"MANIFEST": "manifests/tag.yaml"}


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, and its text without the indentation. README has no fences, and no languages."""

    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    if page.name != "README.md":
        for match in FENCE.finditer(text):
            yield Block(match[2], textwrap.dedent(match[3]))
        return
    for match in INDENTED.finditer(text):
        block = textwrap.dedent(match[1]).strip("\n")
        first = block.split()[0].removeprefix(".venv/bin/")
        language = "sh" if first in PROGRAMS else "python" if first in ("from", "import") else "yaml"
        yield Block(language, block)


def commands(page: Path) -> Iterator[list[str]]:
    """The command lines of a page as words; comments are left out. Unknown programs are an AssertionError."""
    for block in blocks(page):
        for line in block.text.splitlines() if block.language == "sh" else ():
            words = shlex.split(line, comments=True)
            if not words or words[0] in NOT_OURS:
                continue
            words[0] = words[0].removeprefix(".venv/bin/")
            assert words[0] in PROGRAMS, f"{page.name}: nobody knows how to test {line!r}"
            yield [STANDS_FOR.get(word, word) for word in words]


def parse(words: Sequence[str], *, may_lack_arguments: bool = False) -> dict[str, Any]:
    """The parameters of a `rembert-ray` command line, as its real parser has them; it fails as the command would."""
    group: Any = typer.main.get_command(app)
    parent = group.make_context("rembert-ray", [], resilient_parsing=True)
    verb = group.get_command(parent, words[1])
    assert verb is not None, f"there is no verb {words[1]!r}"
    context = verb.make_context(words[1], list(words[2:]), parent=parent, resilient_parsing=may_lack_arguments)
    known = {option for parameter in verb.params for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, words
    return dict(context.params)


def parse_of_ray(words: Sequence[str]) -> list[str]:
    """Check a command of Ray's; returns the command that it submits, if it does."""
    from ray.scripts.scripts import cli

    found: Any = cli
    context = found.make_context("ray", [], resilient_parsing=True)
    rest = list(words[1:])
    while hasattr(found, "commands"):
        found = found.get_command(context, rest[0])
        assert found is not None, words
        rest = rest[1:]
    end = rest.index("--") if "--" in rest else len(rest)
    found.make_context(found.name, [*rest], parent=context)
    return rest[end + 1 :]


def parse_of_python(words: Sequence[str]) -> None:
    """Check that a module or a script is there and knows its flags."""
    place = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
    source = (REPOSITORY / place).read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and word.split("=")[0] not in source] == []


class Workspace:
    """A folder like a clone of the repository, with a corpus of 553 sentences; it must be the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "manifests", folder / "manifests")
        (folder / "demo" / "corpus").mkdir(parents=True)
        (folder / "demo" / "corpus" / CORPUS).symlink_to(REPOSITORY / "demo" / "corpus" / CORPUS)
        (folder / "demo" / "model").symlink_to(REPOSITORY / "demo" / "model")

    def run(self, words: list[str]) -> None:
        """Do what a command line says, as far as it goes without Ray. AssertionError when it would fail."""
        match words:
            case ["make", *targets]:
                dry = ["make", "--dry-run", *targets]
                subprocess.run(dry, cwd=REPOSITORY, check=True, capture_output=True, timeout=120)
                if targets == ["demo"]:
                    self.do("manifests/tag.yaml", ("output.path=out/tag",))
            case ["ray", *_]:
                if submitted := parse_of_ray(words):
                    self.run(submitted)
            case ["python", "-c", code]:
                subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
            case ["python", script, *arguments] if script.startswith("jobs/"):
                self.job(script, arguments)
            case ["python", *_]:
                parse_of_python(words)
            case _:
                self.verb(words)

    def verb(self, words: list[str]) -> None:
        """One of `rembert-ray`."""
        values = parse(words)
        if words[1] == "run" and not values["dry_run"]:
            self.do(values["manifest"], tuple(values["overrides"] or ()))
        elif words[1] == "retry" and not values["dry_run"]:
            assert Path(values["output"]).is_dir()
        elif words[1] in ("run", "evaluate", "convert"):
            # Minutes of a long document; labels and a checkpoint that the demo has not. Their own tests run them.
            return
        else:
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}\n{done.exception!r}"

    def job(self, script: str, arguments: list[str]) -> None:
        """A file of `jobs/`, up to the point where it would run."""
        assert (REPOSITORY / script).is_file()
        called: list[tuple[Any, ...]] = []

        def run(*arguments: object, **options: object) -> int:
            called.append(arguments)
            return 0

        before = sys.argv, entry.run
        sys.argv, entry.run = [script, *arguments], run
        try:
            entry.main(str(self.folder / script))
        except SystemExit as end:
            if end.code != 0:
                raise
        finally:
            sys.argv, entry.run = before
        manifest, overrides, *_ = called[0]
        self.do(manifest, overrides)

    def do(self, manifest: str, overrides: tuple[str, ...]) -> None:
        """Run a job to its end, without Ray, where that is in this folder; others are at a URL or at home."""
        if "://" in manifest or not Path(load_manifest(manifest, overrides).output.path).is_relative_to(self.folder):
            return
        checked = check_job(load_manifest(manifest, overrides))
        plan = freeze_plan(checked.output, checked.plan)
        spec = job_spec(checked, plan, "in-process", n_threads=1)
        encode, infer, write = Encode(spec), Infer(spec), Write(spec)
        for shard in plan.iter_shards():
            envelope = write.write(infer.infer(encode.encode(Envelope(shard))))
            assert envelope.failure is None
        assert run_checked(checked, Narrator(Console(quiet=True))) == 0


def run_python(code: str) -> None:
    """Run a block of Python; only compile it where a library is not installed."""
    compiled = compile(code, "block", "exec")
    wanted = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    if all(find_spec(name) is not None for name in wanted):
        exec(compiled, {"__name__": "block"})
