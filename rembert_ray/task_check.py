"""What the manifest alone tells of a job: its task, the task's parameters and columns, places that are none.

`validate` is this and the manifest; `check` goes on with model, corpus and output. It reads nothing but the manifest,
and imports nothing that only those need: a person waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from rembert_ray.errors import Fault, UnusableError, nearest
from rembert_ray.manifest import Manifest, manifest_from, read_source
from rembert_ray.manifest_source import KeyPath, Source
from rembert_ray.schema_faults import faults_from
from rembert_ray.storage.location import Location, locate
from rembert_ray.tasks.base import Task, find_task


def check_manifest(path_or_url: str, overrides: Sequence[str] = ()) -> Manifest:
    """A manifest of which all is right that can be told without looking at model, corpus and output.

    Raises:
        UnusableError: every fault of it; those of `head`, too, when other keys have theirs.
        StorageError: the manifest is at a URL and its store does not answer.
    """
    source = read_source(path_or_url, overrides)
    try:
        manifest = manifest_from(source)
    except UnusableError as error:
        faults = [*error.faults, *_faults_beside(source)]
        raise UnusableError(list(dict.fromkeys(faults))) from error
    _, faults = check_task(manifest)
    for key, place in manifest.places():
        try:
            located(manifest, key, place)
        except UnusableError as error:
            faults += error.faults
    if faults:
        raise UnusableError(faults)
    return manifest


def located(manifest: Manifest, key: str | KeyPath, place: str) -> Location:
    """The location of a place that the manifest names under `key`.

    Raises:
        UnusableError: it is none; the fault is at the key, where a person looks for it.
    """
    try:
        return locate(place)
    except UnusableError as error:
        where = manifest.where(key)
        faults = [Fault(where, f"{fault.where}: {fault.what}", fault.fix) for fault in error.faults]
        raise UnusableError(faults) from error


def _faults_beside(source: Source) -> list[Fault]:
    """What is wrong with task and `head` of a manifest that has other faults."""
    values = source.values if isinstance(source.values, dict) else {}
    task, head = values.get("task"), values.get("head") or {}
    if not isinstance(task, str):
        return []
    try:
        kind = find_task(task, source.where(("task",)))
        if isinstance(head, dict):
            kind.Parameters.model_validate(head)
    except UnusableError as error:
        return list(error.faults)
    except ValidationError as error:
        return faults_from(error, kind.Parameters, source.where, source.is_refused, prefix=("head",))
    return []


def check_task(manifest: Manifest) -> tuple[Task, list[Fault]]:
    """The task of a manifest, and what is wrong with its parameters and columns.

    A task with faults has its default parameters, so that the checks after this one can go on.

    Raises:
        UnusableError: no such task.
    """
    kind = find_task(manifest.task, manifest.where("task"))
    known = {name for form in kind.input_forms for name in form}
    faults = [
        Fault(
            manifest.where(f"input.columns.{name}"),
            f"task {manifest.task} reads no column {name!r}",
            nearest(name, known),
        )
        for name in manifest.input.columns
        if name not in known
    ]
    if not faults and not any(set(form) >= manifest.input.columns.keys() for form in kind.input_forms):
        forms = " or ".join(" and ".join(form) for form in kind.input_forms)
        what = f"task {manifest.task} reads {forms}, not {' and '.join(manifest.input.columns)}"
        faults.append(Fault(manifest.where("input.columns"), what, "name the columns of one of them"))
    try:
        parameters = kind.Parameters.model_validate(manifest.head)
    except ValidationError as error:
        parameters = kind.Parameters()
        faults += faults_from(error, kind.Parameters, manifest.where, prefix=("head",))
    task = kind(parameters)
    task.form = tuple(resolve_columns(manifest, task))
    return task, faults


def resolve_columns(manifest: Manifest, task: Task) -> dict[str, str]:
    """The task's word for each column it reads -> the column of the corpus: the first form with all that are named."""
    named = manifest.input.columns
    form = next((form for form in task.input_forms if set(form) >= named.keys()), task.input_forms[0])
    return {name: named.get(name, name) for name in form}
