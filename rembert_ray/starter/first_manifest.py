"""From a few answers to a first manifest on disk: what is not answered is proposed from corpus and checkpoint.

Each function checks one answer and says what is wrong with it, so that a person can be asked again. The manifest is
written create-only; it starts nothing, and writes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rembert_ray.check import CheckedJob, check_job
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.models.config import AutoConfig, EncoderConfig
from rembert_ray.models.inventory import match, read_inventory
from rembert_ray.report.inspection import OF_SEVERAL_FOLDERS, driven_tasks, made_for
from rembert_ray.starter.corpus import Corpus, check_kept, guess_columns, guess_kept, look_at_corpus, written_path
from rembert_ray.starter.template import manifest_text
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import Location, exists, locate
from rembert_ray.storage.put import put_new, put_replacing
from rembert_ray.tasks.base import COMMON_FIELDS, find_task

NEEDED = {
    "corpus": "PLACE: a Parquet file, folder or glob; local or URL",
    "model": "FOLDER: a checkpoint, local or URL",
    "output": "FOLDER: where the result shall go, local or URL",
}
"""What nothing can propose."""
SCHEMA_FILE = "manifest.schema.json"
Answer = TypeVar("Answer")


@dataclass
class Answers:
    """What a person gave: None where nothing was. `columns` are what the task reads -> column of the corpus."""

    corpus: str | None = None
    model: str | None = None
    output: str | None = None
    task: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    keep: list[str] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder can do; `proposed` is the task that it was made for, or the likeliest."""

    path: str
    config: EncoderConfig
    tasks: tuple[str, ...]
    proposed: str


@dataclass(frozen=True)
class Draft:
    """Everything that the manifest says."""

    corpus: Corpus
    model: Checkpoint
    task: str
    columns: dict[str, str]
    keep: list[str]
    output: str


def check_free(file: str, *, is_forced: bool) -> Location:
    """Where the manifest goes. Raises `UnusableError` when there is something and it is not `is_forced`."""
    location = locate(file)
    try:
        is_there = exists(location)
    except storage_errors() as error:
        raise UnusableError(explain(str(location), error)) from error
    if is_there and not is_forced:
        raise UnusableError(Fault(file, "is there already", "name another file, or give --force to replace it"))
    return location


def look_at_model(path: str) -> Checkpoint:
    """Configuration and tensor names of a model folder. Raises `UnusableError` when no task could use them."""
    folder = locate(path)
    config, inventory = AutoConfig.from_pretrained(folder), read_inventory(folder)
    tasks = driven_tasks(config, inventory)
    if not tasks:
        task = find_task("embed")
        encoder = task(task.Parameters()).weights(config)
        faults = match(inventory, encoder, config.base_model_prefix).faults(str(folder))
        what = "no task can use this model"
        raise UnusableError(faults or Fault(str(folder), what, f"`rembert-ray inspect {folder}` tells more"))
    others = [task for task in tasks if task != "embed"]
    # Every model embeds; a head that is there is there for a reason.
    proposed = made_for(config, tasks) or (others[0] if len(others) == 1 else "embed")
    return Checkpoint(path, config, tuple(tasks), proposed if proposed in tasks else tasks[0])


def check_task_of(model: Checkpoint, task: str) -> str:
    """The task itself. Raises `UnusableError` when there is no such task, or the model cannot drive it."""
    find_task(task, "--task")
    if task in OF_SEVERAL_FOLDERS:
        raise UnusableError(Fault("--task", f"{task} reads several model folders", f"start from manifests/{task}.yaml"))
    if task not in model.tasks:
        fix = (
            f"it can: {', '.join(model.tasks)}; `rembert-ray inspect {model.path} --task {task}` tells what is missing"
        )
        raise UnusableError(Fault("--task", f"the model cannot {task}", fix))
    return task


def columns_for(corpus: Corpus, task: str, given: dict[str, str]) -> dict[str, str]:
    """See `guess_columns`; a given column under an empty name is that of the task's first."""
    forms = find_task(task).input_forms
    named = {name or forms[0][0]: column for name, column in given.items()}
    return guess_columns(corpus, forms, named)


def kept_for(corpus: Corpus, model: Checkpoint, task: str, columns: dict[str, str]) -> list[str]:
    """The columns worth keeping that the output does not have anyway."""
    kind = find_task(task)
    own = kind(kind.Parameters()).schema(model.config).names
    return guess_kept(corpus, [*columns.values(), *own, *(common.name for common in COMMON_FIELDS)])


def check_output_place(path: str) -> str:
    """The place itself. Raises `UnusableError` when it is none."""
    locate(path)
    return path


def draft_from(answers: Answers) -> Draft:
    """The draft that answers and proposals make.

    Raises:
        UnusableError: every answer that is missing, or every one that is wrong.
    """
    if missing := [flag for flag in NEEDED if not getattr(answers, flag)]:
        what = "is needed, as this is no terminal where it could be asked for"
        raise UnusableError([Fault(f"--{flag}", what, f"--{flag} {NEEDED[flag]}") for flag in missing])
    faults: list[Fault] = []
    corpus = _tried(lambda: look_at_corpus(answers.corpus or ""), faults)
    model = _tried(lambda: look_at_model(answers.model or ""), faults)
    output = _tried(lambda: check_output_place(answers.output or ""), faults)
    task = _tried(lambda: check_task_of(model, answers.task or model.proposed), faults) if model else None
    columns = _tried(lambda: columns_for(corpus, task, answers.columns), faults) if corpus and task else None
    if corpus and answers.keep:
        _tried(lambda: check_kept(corpus, answers.keep or []), faults)
    if faults:
        raise UnusableError(faults)
    assert corpus is not None
    assert model is not None
    assert task is not None
    assert columns is not None
    assert output is not None
    keep = kept_for(corpus, model, task, columns) if answers.keep is None else answers.keep
    return Draft(corpus, model, task, columns, keep, output)


def _tried(look: Callable[[], Answer], faults: list[Fault]) -> Answer | None:
    try:
        return look()
    except UnusableError as error:
        faults += error.faults
        return None


def write_manifest(draft: Draft, file: Location, *, is_forced: bool = False) -> None:
    """Write the manifest. Raises `UnusableError` when somebody made the file meanwhile, `StorageError`."""
    folder = file.parent
    has_schema = exists(folder.child(SCHEMA_FILE))
    text = manifest_text(
        {
            "task": draft.task,
            "model": written_path(draft.model.path, folder),
            "input": {
                "path": written_path(draft.corpus.path, folder),
                "columns": draft.columns,
                "keep": draft.keep,
            },
            "output": {"path": written_path(draft.output, folder)},
        },
        SCHEMA_FILE if has_schema else None,
    )
    if is_forced:
        put_replacing(file, text.encode())
    elif not put_new(file, text.encode()):
        raise UnusableError(Fault(str(file), "is there already", "name another file"))


def check_written(file: str) -> CheckedJob:
    """Validate and check the manifest as `plan` does. Raises `UnusableError` with everything that does not fit."""
    return check_job(load_manifest(file), for_writing=False)


def describe_draft(draft: Draft) -> Iterator[str]:
    """What was found, for a person: a line for the corpus, for the model and for what the task reads and keeps."""
    corpus, config = draft.corpus, draft.model.config
    files = f"{corpus.n_files:,} file{'s' * (corpus.n_files != 1)}"
    yield f"corpus      {corpus.path}: {files} with {_listed([column.name for column in corpus.columns])}"
    if corpus.partitions:
        yield f"            in folders by {_listed(corpus.partitions)}"
    yield f"model       {draft.model.path}: {config.model_type}, can {_listed(draft.model.tasks)}"
    reads = " and ".join(
        name if name == column else f"{name} (column {column})" for name, column in draft.columns.items()
    )
    yield f"task        {draft.task} reads {reads}, keeps {_listed(draft.keep)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
