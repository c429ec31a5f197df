"""What a manifest can say: the tasks with their columns and parameters, and the manifest's JSON schema.

Everything is read from the code that checks manifests, so that it cannot differ. Imports neither torch nor ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from rembert_ray.manifest import Manifest
from rembert_ray.models.config import RemBertConfig
from rembert_ray.tasks.base import COMMON_FIELDS, LIST_COLUMNS, find_task, task_names

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def describe_tasks() -> Iterator[str]:
    """Lines for a person: what each task is, reads, writes, and what its `head` section may hold."""
    for name in task_names():
        kind = find_task(name)
        task = kind(kind.Parameters())
        forms = (
            ", ".join(f"{c} (list of text)" if c in LIST_COLUMNS else c for c in form) for form in kind.input_forms
        )
        written = (f"{field.name}: {field.type}" for field in task.schema(RemBertConfig()))
        yield f"{name}: {(kind.__doc__ or '').splitlines()[0]}"
        yield f"  model   {model_class_name(task.model_head)}"
        yield f"  reads   {' | '.join(forms)}"
        yield f"  writes  {', '.join(written)}"
        yield "  head"
        for key, field in kind.Parameters.model_fields.items():
            yield f"    {key}: {_type_name(field)} = {_default(field)}  {field.description or ''}".rstrip()
        yield ""
    yield f"every task also writes {', '.join(f'{field.name}: {field.type}' for field in COMMON_FIELDS)}"


def list_tasks() -> list[dict[str, Any]]:
    """The same for a program; `head` is a JSON schema. Columns that every task writes are under `writes`, too."""
    found = []
    for name in task_names():
        kind = find_task(name)
        fields = [*kind(kind.Parameters()).schema(RemBertConfig()), *COMMON_FIELDS]
        found.append(
            {
                "name": name,
                "description": (kind.__doc__ or "").splitlines()[0],
                "model": model_class_name(kind.model_head),
                "reads": [list(form) for form in kind.input_forms],
                "writes": {field.name: str(field.type) for field in fields},
                "head": kind.Parameters.model_json_schema(),
            }
        )
    return found


def manifest_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a manifest; `head` depends on `task`."""
    schema = Manifest.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for name, section in schema["properties"].items():
        if name not in schema["required"] and ("$ref" in section or name == "head"):
            # An empty section is a null in YAML, and means the defaults.
            kept = {key: section.pop(key) for key in ("description", "default") if key in section}
            schema["properties"][name] = {"anyOf": [dict(section), {"type": "null"}], **kept}
    schema["properties"]["task"] = {
        "enum": task_names(),
        "description": schema["properties"]["task"].get("description", ""),
    }
    schema["allOf"] = []
    for name in task_names():
        parameters = find_task(name).Parameters.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= parameters.pop("$defs", {})
        definitions[f"head_{name}"] = parameters
        head = {"anyOf": [{"$ref": f"#/$defs/head_{name}"}, {"type": "null"}]}
        condition = {"properties": {"task": {"const": name}}, "required": ["task"]}
        schema["allOf"].append({"if": condition, "then": {"properties": {"head": head}}})
    return {"$schema": SCHEMA_DIALECT, "title": "rembert-ray manifest", **schema}


def model_class_name(head: str) -> str:
    """`token_classification` -> `ForTokenClassification`: what follows the family in the name of a model class."""
    if head == "base":
        return "Model"
    return "For" + "".join({"lm": "LM"}.get(word, word.title()) for word in head.split("_"))


def _type_name(field: FieldInfo) -> str:
    annotation = field.annotation
    is_plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if is_plain and annotation is not None else str(annotation)
    return text.replace("typing.", "").replace("Literal", "").replace("NoneType", "null").replace("None", "null")


def _default(field: FieldInfo) -> str:
    return json.dumps(field.get_default(call_default_factory=True))
