"""YAML text and `--set` arguments -> plain values that remember where each of them was written.

It knows YAML and nothing of what a manifest means. It reads parser events, never a loader: no alias is
expanded, no tag is constructed, no duplicate key is dropped, and a plain scalar means what YAML 1.2's core
schema says (`no` and `22:30` are text). It must not touch storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from rembert_ray.errors import Fault

KeyPath = tuple[str | int, ...]
PlaceOf = Callable[[Any], str]

MAX_DEPTH = 16
"""Sections deeper than this are refused, so that no nesting can exhaust the stack."""

_MAX_NUMBER_LENGTH = 64
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


class _UnreadableError(Exception):
    """The rest of the text cannot be read; the fault that says why is already recorded."""


@dataclass
class Source:
    """Values as written, the place of each key, and the faults met on the way.

    `places` maps a key path to `tag.yaml:12:3` or `--set`; `overridden` are the paths that came from `--set`;
    `refused` are the paths whose value could not be taken, so that nobody complains about them a second time.
    """

    name: str
    values: Any = None
    places: dict[KeyPath, str] = field(default_factory=dict)
    overridden: set[KeyPath] = field(default_factory=set)
    refused: set[KeyPath] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """`tag.yaml:12:3 head.top_k`: the place of the key, or of the nearest section, then the key."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return f"{self.places[path[:end]]} {dotted(path)}"
        return f"{self.name} {dotted(path)}".rstrip()

    def is_overridden(self, path: KeyPath) -> bool:
        """Whether the value at `path` was given by `--set`, itself or as part of a section."""
        return any(path[:end] in self.overridden for end in range(1, len(path) + 1))

    def is_refused(self, path: KeyPath) -> bool:
        """Whether a fault already covers the value at `path`."""
        return any(path[:end] in self.refused for end in range(len(path) + 1))


def dotted(path: KeyPath) -> str:
    """`("input", "keep", 1)` -> `input.keep[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def parse_yaml(text: str, name: str) -> Source:
    """Read one YAML document; whatever is wrong with it is in `faults` of the result, never raised.

    `name` is what the places are called by. An empty document gives `values=None` without a fault.
    """
    source = Source(name)
    _parse_into(source, text, lambda mark: f"{name}:{mark.line + 1}:{mark.column + 1}", ())
    return source


def apply_override(source: Source, argument: str) -> None:
    """Set one `a.b=c` of `--set` in `source`; `c` is YAML (a scalar or a flow collection).

    A later argument wins over an earlier one. Faults go into `source.faults`.
    """
    key, equals, text = argument.partition("=")
    path: KeyPath = tuple(key.strip().split("."))
    if not equals or not all(path):
        fix = "write --set section.key=value, for example --set sharding.rows=5000"
        source.faults.append(Fault(f"--set {argument}", "expected key=value", fix))
        return
    node = source.values
    for depth, part in enumerate(path[:-1], start=1):
        if node.get(part) is None:
            node[part] = {}
            source.places[path[:depth]] = "--set"
        node = node[part]
        if not isinstance(node, dict):
            what = f"{dotted(path[:depth])!r} holds a value, not a section"
            source.faults.append(Fault(f"--set {key}", what, f"use --set {dotted(path[:depth])}=value"))
            return
    for known in [*source.places, *source.refused]:
        if known[: len(path)] == path:
            source.places.pop(known, None)
            source.refused.discard(known)
    source.places[path] = "--set"
    source.overridden.add(path)
    value = Source("--set")
    _parse_into(value, text, lambda mark: "--set", path)
    node[path[-1]] = value.values
    source.places.update(value.places)
    source.refused |= value.refused
    source.faults.extend(value.faults)


def _parse_into(source: Source, text: str, place: PlaceOf, root: KeyPath) -> None:
    try:
        source.values = _Builder(source, text, place).document(root)
    except _UnreadableError:
        source.refused.add(root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at_tab = mark is not None and _character_at(text, mark.line, mark.column) == "\t"
        what = "a tab stands where YAML wants spaces" if at_tab else f"not valid YAML: {error.problem}"
        fix = "replace tabs by spaces" if at_tab else "check indentation and quotes there"
        where = source.name if mark is None else f"{place(mark)} {dotted(root)}".rstrip()
        source.faults.append(Fault(where, what, fix))
        source.refused.add(root)
    except YAMLError as error:
        what = "not valid YAML: " + " ".join(str(error).split())
        source.faults.append(Fault(source.name, what, "the file must be plain UTF-8 text"))
        source.refused.add(root)


def _character_at(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    return lines[line][column : column + 1] if line < len(lines) else ""


def _plain_scalar(text: str) -> object:
    """A plain (unquoted) scalar by YAML 1.2's core schema, section 10.3.2."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_NUMBER_LENGTH:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _HEX.fullmatch(text):
        return int(text, 16)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Builder:
    """One pass over the parser's events."""

    def __init__(self, source: Source, text: str, place: PlaceOf) -> None:
        self._source = source
        self._place = place
        self._events: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))

    def document(self, root: KeyPath) -> Any:
        value: Any = None
        n_documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    self._stop(event, root, "a second document starts here", "keep one document per file")
                value = self._value(next(self._events), root)
            elif isinstance(event, DocumentEndEvent | StreamEndEvent):
                continue
        return value

    def _value(self, event: Event, path: KeyPath) -> Any:
        if len(path) > MAX_DEPTH:
            self._stop(event, path, "nested too deeply", f"no section is deeper than {MAX_DEPTH}")
        if isinstance(event, AliasEvent):
            self._refuse(
                event,
                path,
                f"aliases (*{event.anchor}) are not supported",
                "write the value out, in quotes if it is text",
            )
            return None
        assert isinstance(event, NodeEvent)
        if event.anchor:
            self._refuse(event, path, f"anchors (&{event.anchor}) are not supported", "remove the anchor")
        # Quoted text has no tag of its own in the events; a tag here is one that somebody wrote.
        tag = getattr(event, "tag", None)
        if tag:
            self._refuse(event, path, f"tags ({tag}) are not supported", "remove the tag")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        assert isinstance(event, ScalarEvent)
        text = self._text(event, path)
        return text if event.style else _plain_scalar(text)

    def _text(self, event: Event, path: KeyPath) -> str:
        """The characters of a scalar. JSON writes those above U+FFFF as two escapes, which the parser leaves apart."""
        text = str(getattr(event, "value", ""))
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            what = "half of a surrogate pair is no character"
            self._refuse(event, path, what, "write the character itself")
            return ""

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_event in self._events:
            if isinstance(key_event, MappingEndEvent):
                break
            if not isinstance(key_event, ScalarEvent) or key_event.anchor or key_event.tag:
                self._stop(key_event, path, "a key must be plain text", "write key: value")
            key = self._text(key_event, path)
            child = (*path, key)
            place = self._place(key_event.start_mark)
            if key == "<<" and not key_event.style:
                self._value(next(self._events), child)
                self._refuse(key_event, child, "merge keys (<<) are not supported", "write the values out")
            elif key in values:
                first = self._source.places[child]
                self._skip(next(self._events), child)
                what = f"the key is written twice, first at {first}"
                self._source.faults.append(Fault(f"{place} {dotted(child)}", what, "remove one of the two"))
            else:
                self._source.places[child] = place
                values[key] = self._value(next(self._events), child)
        return values

    def _sequence(self, path: KeyPath) -> list[Any]:
        values: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            child = (*path, len(values))
            self._source.places[child] = self._place(event.start_mark)
            values.append(self._value(event, child))
        return values

    def _skip(self, event: Event, path: KeyPath) -> None:
        """Read a value away without letting it move the places of the one that counts."""
        kept, self._source = self._source, Source(self._source.name)
        self._value(event, path)
        kept.faults.extend(self._source.faults)
        self._source = kept

    def _refuse(self, event: Event, path: KeyPath, what: str, fix: str) -> None:
        where = f"{self._place(event.start_mark)} {dotted(path)}".rstrip()
        self._source.faults.append(Fault(where, what, fix))
        self._source.refused.add(path)

    def _stop(self, event: Event, path: KeyPath, what: str, fix: str) -> NoReturn:
        self._refuse(event, path, what, fix)
        raise _UnreadableError
