"""The YAML of a first manifest: what was answered, and every other key as a comment with its default and what it does.

All of it is read from the models that check manifests (`Manifest`, a task's `Parameters`), so that it cannot drift.
It knows no key by name but those that `init` answers; it reads and writes no file.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rembert_ray.manifest import Manifest
from rembert_ray.manifest_source import parse_yaml
from rembert_ray.plan import format_bytes
from rembert_ray.tasks.base import find_task

COMMENT_COLUMN = 36
LINE_WIDTH = 118
_TITLE = "A first manifest by `rembert-ray init`: keys with a # in front have the value that is shown."


def manifest_text(answers: Mapping[str, Any], schema: str | None = None) -> str:
    """The manifest with `answers`: key -> value, or section -> (key -> value); `task` is among them.

    `schema` is the place of manifest.schema.json as editors shall find it.
    """
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += [f"# {_TITLE}", "# Relative paths count from this file. `rembert-ray tasks` lists the tasks."]
    parameters = find_task(answers["task"]).Parameters
    for name, field in Manifest.model_fields.items():
        section = parameters if name == "head" else field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            about = field.description or (section.__doc__ or "").splitlines()[0].rstrip(".")
            lines += ["", *_entry(f"{name}:", about)]
            given = answers.get(name, {})
            for key, own in section.model_fields.items():
                lines += _line(key, own, given, indent="  ")
        else:
            # Task and model belong together; what else is no section stands alone.
            lines += [*([""] if name != "model" else []), *_line(name, field, answers, indent="")]
    return "\n".join(lines) + "\n"


def _line(key: str, field: FieldInfo, given: Mapping[str, Any], indent: str) -> Iterator[str]:
    if key in given:
        code = f"{indent}{key}: {as_yaml(given[key])}"
    else:
        default = field.get_default(call_default_factory=True)
        # Sizes are written as people write them.
        is_size = key == "bytes" and isinstance(default, int)
        code = f"{indent}# {key}: {format_bytes(default).replace('.0 ', ' ') if is_size else as_yaml(default)}"
    yield from _entry(code, " ".join([field.description or "", _choices(field)]).strip())


def _entry(code: str, about: str) -> Iterator[str]:
    """A line with its comment behind it, or below one another where that is too long."""
    if not about:
        yield code
        return
    is_long = len(code) > COMMENT_COLUMN - 2
    column = len(code) - len(code.lstrip()) if is_long else COMMENT_COLUMN
    comments = [f"# {line}" for line in textwrap.wrap(about, LINE_WIDTH - column - 2)]
    if is_long:
        yield from (" " * column + comment for comment in comments)
        yield code
        return
    yield f"{code:<{column}}{comments[0]}"
    yield from (" " * column + comment for comment in comments[1:])


def _choices(field: FieldInfo) -> str:
    words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f"({' | '.join(map(str, words))})" if words else ""


def as_yaml(value: Any) -> str:
    """A value on one line, as `manifest_source` reads it back."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    if isinstance(value, str) and not _is_plain(value):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return value if isinstance(value, str) else json.dumps(value)


def _is_plain(text: str) -> bool:
    """Whether it needs no quotes anywhere: only harmless characters, and read back as the same text."""
    is_harmless = text.isascii() and text.replace("/", "a").replace(".", "a").replace("-", "a").isidentifier()
    return is_harmless and parse_yaml(f"[{text}]", "").values == [text]
