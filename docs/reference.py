"""Makes the reference pages from the code that they describe: `python docs/reference.py` (or `make docs`).

The pages are committed, so that they can be read on a code host; a test says when they are stale. This file describes
nothing itself: text comes from descriptions and docstrings. It must not look at models, corpora or outputs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from rembert_ray.catalog import manifest_schema, model_class_name
from rembert_ray.models.config import RemBertConfig
from rembert_ray.report.run_record import RUN_RECORD, SCHEMA_VERSION, RunRecord
from rembert_ray.tasks.base import COMMON_FIELDS, LIST_COLUMNS, find_task, task_names

FOLDER = Path(__file__).parent / "reference"
NOTICE = "<!-- Made by `python docs/reference.py`; change the code, not this page. -->\n\n"
JsonSchema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """File name -> Markdown of every generated page."""
    made = {
        "manifest.md": manifest_page(),
        "tasks.md": tasks_page(),
        "run-record.md": record_page(),
        "metrics.md": metrics_page(),
    }
    return {name: NOTICE + "\n".join(lines) + "\n" for name, lines in made.items()}


def manifest_page() -> Iterator[str]:
    """Every key of a manifest."""
    schema = manifest_schema()
    sections = {name: resolve(prop, schema) for name, prop in schema["properties"].items()}
    yield "# Manifest reference\n"
    yield (
        "Every key that a manifest may hold. Unknown keys are refused. `--set a.b=c` overrides any of them. *Required* "
        "ones must be given. Sizes are numbers of bytes or texts such as `64 MiB`.\n"
    )
    yield "## Top level\n"
    top = {name: prop for name, prop in sections.items() if "properties" not in prop}
    yield from keys_table(top, schema["required"], schema)
    for name, section in sections.items():
        if "properties" in section:
            yield f"\n## `{name}`\n\n{sentences(section)}\n"
            yield from keys_table(section["properties"], section.get("required", []), schema)
    yield "\n## `head`\n\nThe parameters of the task; each task has its own.\n"
    for name in task_names():
        yield f"\n### `head` of `task: {name}`\n"
        head = schema["$defs"][f"head_{name}"]
        yield from keys_table(head["properties"], head.get("required", []), schema)
    for name in listed_definitions(schema):
        definition = schema["$defs"][name]
        yield f"\n### Each of `heads` of `task: several`\n\n{sentences(definition)}\n"
        yield from keys_table(definition["properties"], definition.get("required", []), schema)


def listed_definitions(schema: JsonSchema) -> list[str]:
    """The definitions that a list in the head of a task refers to."""
    heads = [schema["$defs"][f"head_{name}"]["properties"] for name in task_names()]
    items = [prop["items"]["$ref"] for head in heads for prop in head.values() if "$ref" in prop.get("items", {})]
    return [reference.rsplit("/", 1)[-1] for reference in items]


def tasks_page() -> Iterator[str]:
    """What each task reads, writes, and takes."""
    yield "# Task reference\n"
    yield (
        "`task:` is one of " + ", ".join(f"[`{name}`](#{name})" for name in task_names()) + ". Columns of a type that "
        "depends on the model or on parameters are shown as they are with the defaults of RemBERT.\n"
    )
    schema = manifest_schema()
    for name in task_names():
        kind = find_task(name)
        task = kind(kind.Parameters())
        forms = (", ".join(input_name(column) for column in form) for form in kind.input_forms)
        about = (sys.modules[kind.__module__].__doc__ or "").split(". ", 1)[-1].strip()
        yield f"## {name}\n"
        yield f"- **Model class:** `{model_class_name(task.model_head)}` of either family"
        yield f"- **Reads:** {' or '.join(forms)}\n\n{about}\n"
        written = " ".join((kind.schema.__doc__ or "").split())
        yield f"Writes {written[:1].lower()}{written[1:]}\n"
        yield from fields_table(task.schema(RemBertConfig()))
        yield f"\nParameters (`head:`, see the [manifest reference](manifest.md#head-of-task-{name})):\n"
        head = schema["$defs"][f"head_{name}"]
        yield from keys_table(head["properties"], head.get("required", []), schema)
        yield ""
    yield "## Columns of every task\n\nBehind the columns of the task:\n"
    yield from fields_table(COMMON_FIELDS)


def input_name(column: str) -> str:
    """`words` -> "`words` (a list of text)"."""
    return f"`{column}`" + (" (a list of text)" if column in LIST_COLUMNS else " (text)")


def fields_table(fields: Iterable[pa.Field]) -> Iterator[str]:
    """Columns with their Arrow types."""
    lines = [f"| `{field.name}` | `{field.type}` | {'yes' if field.nullable else 'no'} |" for field in fields]
    if not lines:
        return
    yield "| column | Arrow type | null possible |\n|---|---|---|"
    yield from lines


def record_page() -> Iterator[str]:
    """The schema of `run.json`."""
    schema = RunRecord.model_json_schema()
    yield f"# `{RUN_RECORD}`\n"
    yield (
        f"`_rembert_ray/{RUN_RECORD}` of an output, version {SCHEMA_VERSION}: what a run left behind, in numbers. "
        "Within one version keys are only added. It holds no text of a row. Besides these keys it has `seal`, the "
        "sha256 of the file. `rembert-ray report OUTPUT --json` makes it anew and prints it.\n"
    )
    yield "## The whole record\n"
    yield from keys_table(schema["properties"], None, schema, with_default=False)
    for name, definition in schema["$defs"].items():
        yield f"\n## {name}\n\n{sentences(definition)}\n"
        yield from keys_table(definition.get("properties", {}), None, schema, with_default=False)


def metrics_page() -> Iterator[str]:
    """The metrics of a run, with the names that Prometheus sees."""
    from rembert_ray.report.metrics import COUNTERS, GAUGES, LABELS, PREFIX

    yield "# Metric names\n"
    common = " and ".join(f"`{label}`" for label in LABELS)
    yield f"Names as Ray's agent exports them. Every metric has the labels {common}.\n"
    for title, metrics, suffix in (("Counters", COUNTERS, "_total"), ("Gauges", GAUGES, "")):
        yield f"\n## {title}\n\n| name | further labels | what |\n|---|---|---|"
        for name, (what, labels) in metrics.items():
            further = ", ".join(f"`{label}`" for label in labels)
            yield f"| `ray_{PREFIX}{name}{suffix}` | {further} | {cell(what)} |"


def keys_table(
    properties: Mapping[str, JsonSchema], required: Iterable[str] | None, schema: JsonSchema, with_default: bool = True
) -> Iterator[str]:
    """Keys with type, default and description, those that are there."""
    if not properties:
        yield "None."
        return
    needed = set(required or ())
    has_text = any("description" in prop for prop in properties.values())
    titles = ["key", "type", *(["default"] if with_default else []), *(["description"] if has_text else [])]
    yield f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    for name, prop in properties.items():
        default = "*required*" if name in needed else f"`{json.dumps(prop.get('default'), ensure_ascii=False)}`"
        cells = [f"`{name}`", type_name(prop, schema)]
        cells += [default] if with_default else []
        cells += [cell(str(prop.get("description", "")))] if has_text else []
        yield f"| {' | '.join(cells)} |"


def resolve(prop: JsonSchema, schema: JsonSchema) -> JsonSchema:
    """The definition behind a reference to a section; anything else as it is."""
    options = [prop, *prop.get("anyOf", [])]
    references = [option["$ref"] for option in options if "$ref" in option]
    found: JsonSchema = schema["$defs"][references[0].rsplit("/", 1)[-1]] if references else prop
    return found


def type_name(prop: JsonSchema, schema: JsonSchema) -> str:
    """A JSON schema type in words: `integer > 0`, `"auto"` or `number`."""
    if options := prop.get("anyOf") or prop.get("oneOf"):
        return " or ".join(dict.fromkeys(type_name(option, schema) for option in options))
    if "const" in prop or "enum" in prop:
        return ", ".join(f"`{value}`" for value in prop.get("enum", [prop.get("const")]))
    if "$ref" in prop:
        name = prop["$ref"].rsplit("/", 1)[-1]
        return name if "properties" in schema["$defs"][name] else type_name(schema["$defs"][name], schema)
    name = str(prop.get("type", "any"))
    kind = {"string": "text", "array": "list", "object": "mapping"}.get(name, name)
    if isinstance(prop.get("items"), Mapping):
        return f"list of {type_name(prop['items'], schema)}"
    if isinstance(prop.get("additionalProperties"), Mapping):
        return f"mapping of name to {type_name(prop['additionalProperties'], schema)}"
    return kind + limits(prop)


def limits(prop: JsonSchema) -> str:
    """` from 0 to 1`."""
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{word} {prop[key]:,}" for key, word in words.items() if key in prop]
    return f" {', '.join(said)}" if said else ""


def sentences(definition: JsonSchema) -> str:
    """The description of a definition, on one line."""
    return " ".join(str(definition.get("description", "")).split())


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, page in pages().items():
        (FOLDER / file_name).write_text(page, encoding="utf-8")
