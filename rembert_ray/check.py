"""Everything that can be wrong with a job before Ray starts, found in one go. Imports neither torch nor ray."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rembert_ray.engine.documents import WindowOptions
from rembert_ray.engine.precision import precision_fault, precision_warnings, processor_flags, resolve_precision
from rembert_ray.errors import Fault, UnusableError
from rembert_ray.fingerprint import Fingerprint, digest_model, digest_tokenizer, make_fingerprint
from rembert_ray.footers import InputNeeds
from rembert_ray.manifest import Manifest
from rembert_ray.manifest_source import KeyPath
from rembert_ray.models.config import CONFIG_FILE, AutoConfig, EncoderConfig
from rembert_ray.models.inventory import digest_encoder, match, read_inventory
from rembert_ray.plan import Plan, make_plan, resume_plan
from rembert_ray.ray_faults import ray_faults
from rembert_ray.storage.allowed import AllowedRoots
from rembert_ray.storage.filesystem import explain
from rembert_ray.storage.listing import expand_input, input_root, list_names
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.probe import CONTROL_FOLDER, probe_output
from rembert_ray.task_check import check_task, located, resolve_columns
from rembert_ray.tasks.base import COMMON_FIELDS, LIST_COLUMNS, Task
from rembert_ray.tokenizers.auto import check_tokenizer

NO_FINGERPRINT = Fingerprint({})
RAY_WORKING_DIR = "runtime_resources/working_dir_files"


@dataclass(frozen=True)
class CheckedJob:
    """A job of which everything is known to be usable.

    plan: the stored plan when the output has one, else a new one that is not stored yet.
    windows: how long documents are read.
    warnings: what can be used but may not be what was meant; the plan and the summary show them.
    """

    manifest: Manifest
    task: Task
    config: EncoderConfig
    model: Location
    output: Location
    columns: dict[str, str]
    windows: WindowOptions
    precision: str
    plan: Plan
    warnings: tuple[str, ...] = ()


class _Faults:
    """Collects the faults of independent checks, `with faults:` around each, and warnings."""

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self.warnings: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, UnusableError):
            self.found += [fault for fault in error.faults if fault not in self.found]
            return True
        return False


def check_job(manifest: Manifest, allowed: AllowedRoots | None = None, *, for_writing: bool = True) -> CheckedJob:
    """Check task, parameters, model, tokenizer, input and output of a manifest, and plan the job.

    Args:
        manifest: a manifest that is well formed.
        allowed: where its places may be; default: what the environment says.
        for_writing: whether to try that the output takes create-only objects (this makes its folder).

    Raises:
        UnusableError: every fault that there is.
        StorageError: a store does not answer.
    """
    faults = _Faults()
    faults.found += ray_faults()
    task = config = None
    fingerprint = NO_FINGERPRINT
    with faults:
        task, found = check_task(manifest)
        faults.found += found
    allowed = AllowedRoots.given() if allowed is None else allowed
    if refused := _place_faults(manifest, allowed):
        # Nothing of a place that is not allowed may be looked at, nor told.
        raise UnusableError([*faults.found, *refused])
    model = output = None
    with faults:
        model = located(manifest, "model", manifest.model)
    with faults:
        output = _check_output(manifest, for_writing)
    if model is not None:
        with faults:
            config = _check_model(manifest, model, task, faults)
    _check_precision(manifest, config, faults)
    if task is not None and model is not None and not faults.found:
        with faults:
            fingerprint = _fingerprint(manifest, task, model)
    columns = resolve_columns(manifest, task) if task is not None else {}
    plan = None
    with faults:
        plan = _plan(manifest, columns, fingerprint, None if faults.found else output, allowed)
    if faults.found:
        raise UnusableError(faults.found)
    assert task is not None
    assert config is not None
    assert model is not None
    assert output is not None
    assert plan is not None
    text = manifest.text
    windows = WindowOptions(text.max_tokens or config.max_tokens, text.overlap, text.long_documents)
    precision = resolve_precision(manifest.precision, manifest.resources.gpus_per_actor)
    return CheckedJob(manifest, task, config, model, output, columns, windows, precision, plan, tuple(faults.warnings))


def _place_faults(manifest: Manifest, allowed: AllowedRoots) -> list[Fault]:
    """The places of a manifest that are not below the allowed roots; links inside of folders count too."""
    if not allowed.lists:
        return []
    faults = _Faults()
    for key, place in manifest.places():
        where = manifest.where(key)
        with faults:
            refused = allowed.faults(where, place, is_pattern=key == ("input", "path"))
            faults.found += refused or allowed.file_faults(where, _links_inside(key, place))
    return faults.found


def _links_inside(key: KeyPath, place: str) -> list[Location]:
    """What could be a link in the local folder of a model or an output. (Input files are looked at once listed.)"""
    if key == ("input", "path") or not (folder := locate(place)).is_local:
        return []
    try:
        return [folder.child(name) for name in ([CONTROL_FOLDER] if key[0] == "output" else list_names(folder))]
    except OSError as error:
        raise UnusableError(explain(str(folder), error)) from error


def _check_output(manifest: Manifest, for_writing: bool) -> Location:
    output = located(manifest, "output.path", manifest.output.path)
    where = manifest.where("output.path")
    if output.is_local and RAY_WORKING_DIR in output.path:
        raise UnusableError(
            Fault(
                where,
                f"{output} is inside Ray's copy of the working directory, which Ray deletes after the job",
                "give an absolute path or a URL",
            )
        )
    if for_writing and (found := probe_output(output)):
        raise UnusableError([Fault(f"{where}: {fault.where}", fault.what, fault.fix) for fault in found])
    return output


def _check_model(manifest: Manifest, model: Location, task: Task | None, faults: _Faults) -> EncoderConfig | None:
    config = None
    with faults:
        config = AutoConfig.from_pretrained(model)
    tokenizer = None
    with faults:
        tokenizer = check_tokenizer(model)
    if config is None or task is None:
        return config
    with faults:
        inventory = read_inventory(model)
        faults.found += match(inventory, task.weights(config), config.base_model_prefix).faults(str(model))
    with faults:
        task.set_configs([_check_part(part, own, model, faults) for _, part, own in task.parts(model)])
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        what = f"vocab_size is {config.vocab_size:,}, the tokenizer has {len(tokenizer):,} tokens"
        raise UnusableError(
            Fault(str(model.child(CONFIG_FILE)), what, "take the tokenizer that the model was made with")
        )
    if tokenizer is not None:
        _check_windows(manifest, config, tokenizer.num_special_tokens_to_add())
        faults.warnings += task.take_tokenizer(model, tokenizer)
        has_segments = getattr(task.parameters, "segments", False) and tokenizer.template.second_type_id
        if has_segments and config.type_vocab_size < 2 and len(task.form) > 1:
            what = "true, but the model has one token type only"
            faults.found.append(Fault(manifest.where("head.segments"), what, "set it to false"))
    faults.found += [
        Fault(manifest.where(f"head.{key}".rstrip(".")), what, fix) for key, what, fix in task.faults(config)
    ]
    _check_names(manifest, task, config)
    return config


def _check_part(part: Task, folder: Location, model: Location, faults: _Faults) -> EncoderConfig:
    """The configuration of one of several heads; its encoder and tokenizer must be those of `model`."""
    config = AutoConfig.from_pretrained(folder)
    if folder == model:
        return config
    with faults:
        inventory = read_inventory(folder)
        found = match(inventory, part.weights(config), config.base_model_prefix).faults(str(folder))
        faults.found += found
        if not found and digest_encoder(folder, config) != digest_encoder(model, AutoConfig.from_pretrained(model)):
            what = f"its encoder is not that of {model}"
            raise UnusableError(Fault(str(folder), what, "heads in one pass share one encoder: run them as two jobs"))
    with faults:
        if digest_tokenizer(folder) != digest_tokenizer(model):
            what = f"its tokenizer is not that of {model}"
            raise UnusableError(Fault(str(folder), what, "copy the tokenizer files of the one to the other"))
    return config


def _check_windows(manifest: Manifest, config: EncoderConfig, n_special: int) -> None:
    n_tokens = manifest.text.max_tokens or config.max_tokens
    if n_tokens > config.max_tokens:
        what = f"{n_tokens} is more than the model's {config.max_tokens} positions"
        raise UnusableError(Fault(manifest.where("text.max_tokens"), what, "leave it out to use all positions"))
    capacity, overlap = n_tokens - n_special, manifest.text.overlap
    if capacity <= overlap:
        what = f"{overlap} leaves nothing new in a window of {n_tokens} tokens, {n_special} of them special"
        raise UnusableError(Fault(manifest.where("text.overlap"), what, f"at most {max(capacity - 1, 0)}"))


def _check_precision(manifest: Manifest, config: EncoderConfig | None, faults: _Faults) -> None:
    gpus_per_actor = manifest.resources.gpus_per_actor
    precision = resolve_precision(manifest.precision, gpus_per_actor)
    if fault := precision_fault(precision, gpus_per_actor, config):
        faults.found.append(Fault(manifest.where("precision"), *fault))
    faults.warnings += precision_warnings(precision, gpus_per_actor, processor_flags())


def _check_names(manifest: Manifest, task: Task, config: EncoderConfig) -> None:
    written = {*task.schema(config).names, *(field.name for field in COMMON_FIELDS)}
    taken = [name for name in manifest.input.kept_names if name in written]
    if taken:
        raise UnusableError(
            [
                Fault(
                    manifest.where("input.keep"),
                    f"task {task.name} writes a column {name!r} itself",
                    f"keep it under another name, with input.rename: {{{name}: own_{name}}}",
                )
                for name in taken
            ]
        )


def _fingerprint(manifest: Manifest, task: Task, model: Location) -> Fingerprint:
    parameters: dict[str, Any] = task.parameters.model_dump()
    others = {key: digest_model(own) for key, _, own in task.parts(model) if own != model}
    if others:
        parameters["model_digests"] = others
    return make_fingerprint(
        model_digest=digest_model(model),
        tokenizer_digest=digest_tokenizer(model),
        task=manifest.task,
        head=parameters,
        precision=resolve_precision(manifest.precision, manifest.resources.gpus_per_actor),
        text=manifest.text.model_dump(),
        columns=resolve_columns(manifest, task),
        keep=[
            f"{name} as {own}" if name != own else name
            for name, own in zip(manifest.input.keep, manifest.input.kept_names, strict=True)
        ],
        sharding=manifest.sharding.model_dump(),
    )


def _plan(
    manifest: Manifest,
    columns: dict[str, str],
    fingerprint: Fingerprint,
    output: Location | None,
    allowed: AllowedRoots,
) -> Plan:
    """The stored plan if there is one, else a new one; without `output` only the input is checked."""
    located(manifest, "input.path", manifest.input.path)
    files = expand_input(manifest.input.path)
    if refused := allowed.file_faults(manifest.where("input.path"), (file.location for file in files)):
        raise UnusableError(refused)
    if output is not None and (stored := resume_plan(output, fingerprint, files)) is not None:
        return stored
    needs = InputNeeds.from_manifest(manifest, columns, dict.fromkeys(LIST_COLUMNS, "text_list"))
    record = {
        "manifest": manifest.model_dump(mode="json"),
        "made_in": str(Path.cwd()),
        "user": os.environ.get("USER", ""),
    }
    return make_plan(files, input_root(manifest.input.path), needs, fingerprint, record)
