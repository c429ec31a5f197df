"""Pydantic's errors in the words of a person who writes YAML.

Used for the manifest and, by the tasks, for the parameters in its `head`. It must know no field by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from rembert_ray.errors import Fault, did_you_mean, nearest
from rembert_ray.manifest_source import KeyPath

_RULES: dict[str, tuple[str, str]] = {
    "string_type": ("expected text, got {got}", "put it in quotes"),
    "string_too_short": ("must not be empty", ""),
    "string_pattern_mismatch": ("expected a name of lower-case letters, digits and _, got {got}", ""),
    "int_type": ("expected a whole number, got {got}", ""),
    "float_type": ("expected a number, got {got}", ""),
    "finite_number": ("expected a finite number, got {got}", ""),
    "bool_type": ("expected true or false, got {got}", ""),
    "tuple_type": ("expected a list, got {got}", "write [first, second]"),
    "list_type": ("expected a list, got {got}", "write [first, second]"),
    "dict_type": ("expected a section of keys and values, got {got}", "write `key: value` lines below it"),
    "model_type": ("expected a section of keys and values, got {got}", "write `key: value` lines below it"),
    "greater_than": ("must be greater than {gt}, is {got}", ""),
    "greater_than_equal": ("must be at least {ge}, is {got}", ""),
    "less_than": ("must be less than {lt}, is {got}", ""),
    "less_than_equal": ("must be at most {le}, is {got}", ""),
    "literal_error": ("expected {expected}, got {got}", ""),
}


def faults_from(
    error: ValidationError,
    model: type[BaseModel],
    where: Callable[[KeyPath], str],
    is_known: Callable[[KeyPath], bool] = lambda path: False,
    prefix: KeyPath = (),
) -> list[Fault]:
    """One `Fault` per error that pydantic found while it checked `model`.

    `where` turns a key path into a place; `is_known` says which paths have their fault already. A task
    checks its own section with `faults_from(error, Parameters, manifest.where, prefix=("head",))`.
    """
    faults = []
    for details in error.errors(include_url=False):
        loc: KeyPath = details["loc"]
        path = (*prefix, *loc)
        if not is_known(path):
            what, fix = _explain_error(dict(details), _model_at(model, loc[:-1]), loc)
            faults.append(Fault(where(path), what, fix))
    return faults


def _explain_error(details: dict[str, Any], model: type[BaseModel] | None, loc: KeyPath) -> tuple[str, str]:
    """(what, fix) of one of pydantic's errors."""
    kind = details["type"]
    if kind == "extra_forbidden":
        return "unknown key", nearest(str(loc[-1]), model.model_fields) if model else ""
    if kind == "missing":
        about = model.model_fields[str(loc[-1])].description if model else None
        return "required key is missing", f"add `{loc[-1]}: ...`" + (f", {about}" if about else "")
    if kind in _RULES:
        what, fix = _RULES[kind]
        if kind == "literal_error":
            fix = did_you_mean(str(details["input"]), re.findall("'(.*?)'", details["ctx"]["expected"]))
        return what.format(got=_describe_value(details["input"]), **details.get("ctx", {})), fix
    return str(details["msg"]).removeprefix("Value error, "), ""


def _describe_value(value: object) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel] | None:
    """The section that the key path `loc` leads to, or None where keys are free."""
    current = model
    for part in loc:
        found = current.model_fields.get(str(part))
        if found is None or not (isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel)):
            return None
        current = found.annotation
    return current
