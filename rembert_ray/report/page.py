"""The page of a run, `report.html`: one file without scripts that needs no network. All texts are escaped by jinja2."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup, escape
from ruamel.yaml import YAML

from rembert_ray.errors import ShardError, printable
from rembert_ray.plan import Plan
from rembert_ray.report import charts
from rembert_ray.report.observation import Observation
from rembert_ray.report.profile import Labels, Numbers, Profile
from rembert_ray.report.progress import format_duration
from rembert_ray.report.run_record import RunRecord
from rembert_ray.report.run_report import Against
from rembert_ray.report.sample_view import view, with_inputs
from rembert_ray.report.samples import sample_rows
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.probe import CONTROL_FOLDER
from rembert_ray.storage.put import put_replacing
from rembert_ray.storage.seal import PLACEHOLDER, seal
from rembert_ray.tasks.base import Task
from rembert_ray.text.shown import Bar, Shown, excerpts, pieces, tints

PAGE, TEMPLATE = "report.html", "page.html"
N_BARS = 20
N_MAPPED = 2_000
N_ROWS = 12
N_ROW_BARS = 5

Chart = tuple[str, Markup]


def page_place(output: Location) -> Location:
    """Where the page of an output is."""
    return output.child(CONTROL_FOLDER, PAGE)


def write_page(
    output: Location, record: RunRecord, seen: Observation, task: Task, against: Against | None = None
) -> Location:
    """Store the page beside the output, in place of the last one. Raises `StorageError`."""
    put_replacing(page_place(output), seal(render_page(record, seen, task, against).encode()))
    return page_place(output)


def render_page(record: RunRecord, seen: Observation, task: Task, against: Against | None = None) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rembert_ray.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
    )
    chapters = [
        *_speed_chapter(record),
        *_profile_chapters(record, against.profile if against else {}),
        *_map_chapter(seen, task),
    ]
    return environment.get_template(TEMPLATE).render(
        record=record,
        flag=_flag(record),
        numbers=_numbers(record),
        chapters=chapters,
        rows=_rows(locate(record.output), seen.plan, task),
        tints=charts.GROUP_COLOURS,
        manifest=escape(_yaml(record.manifest)),
        fingerprint=escape(_yaml(record.fingerprint_fields)),
        seal=Markup(PLACEHOLDER),
    )


def _without_controls(value: object) -> object:
    """Texts without characters that are seen by nobody and turn the order of others around."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _flag(record: RunRecord) -> str:
    drift = record.drift.level if record.drift else "none"
    if record.outcome.exit_code not in (0, None) or drift == "fail":
        return "fail"
    return "warn" if drift == "warn" or record.counts.rows_with_error or record.warnings else "good"


def _numbers(record: RunRecord) -> list[tuple[str, str]]:
    counts, speed = record.counts, record.speed
    found = [
        ("rows", f"{counts.rows_committed:,} of {counts.rows_planned:,}"),
        ("shards", f"{counts.shards_committed:,} of {counts.shards_planned:,}"),
        ("rows with an error", f"{counts.rows_with_error:,}"),
        ("tokens", f"{counts.tokens:,}"),
    ]
    if speed is not None:
        found += [
            ("last run took", format_duration(speed.seconds)),
            ("rows/s", f"{speed.rows_per_s:,.0f}"),
            ("tokens/s", f"{speed.tokens_per_s:,.0f}"),
            ("infer actors busy", f"{speed.busy:.0%} of {speed.n_actors}"),
        ]
    if record.padding is not None:
        found.append(("padding avoided", f"{1 - 1 / record.padding.tokens_per_token:.0%}"))
    if counts.tokens:
        found.append(("computed once, not twice", f"{1 - counts.tokens_computed / counts.tokens:.1%}"))
    return found


def _speed_chapter(record: RunRecord) -> list[tuple[str, str, list[Chart]]]:
    if record.speed is None:
        return []
    intervals = record.speed.intervals
    edges = [intervals[0].start_s, *(interval.end_s for interval in intervals)]
    drawn = [
        ("Tokens per second", charts.steps(edges, [i.tokens_per_s for i in intervals], "tokens/s")),
        ("Worker seconds by stage", charts.bars(record.speed.stages, "seconds, added over workers")),
    ]
    note = "Of the last run. Padding: what batches of 32 rows in order of arrival would compute in vain."
    return [("Speed", note, [(name, Markup(svg)) for name, svg in drawn])]


def _profile_chapters(record: RunRecord, earlier: Profile) -> list[tuple[str, str, list[Chart]]]:
    drawn = []
    for name, feature in record.profile.items():
        before = earlier.get(name)
        if isinstance(feature, Labels) and len(feature.counts) > 1:
            drawn.append((_title(name), _label_chart(feature, before if isinstance(before, Labels) else None)))
        elif isinstance(feature, Numbers) and feature.n and feature.quantiles[0] < feature.quantiles[-1]:
            svg = charts.histogram(feature, before if isinstance(before, Numbers) else None)
            drawn.append((_title(name), svg))
    note = f"From {record.sample_rows:,} rows of {record.sample_parts:,} objects."
    if earlier:
        note += " The second colour is the run that it is compared with."
    return [("What came out", note, [(name, Markup(svg)) for name, svg in drawn])] if drawn else []


def _label_chart(feature: Labels, before: Labels | None) -> str:
    names = list(feature.counts)[:N_BARS]
    now = {name: 100 * feature.counts[name] / feature.n for name in names}
    if rest := feature.n - sum(feature.counts[name] for name in names):
        now["(others)"] = 100 * rest / feature.n
    old = None
    if before is not None and before.n:
        old = {name: 100 * before.counts.get(name, 0) / before.n for name in names}
        old["(others)"] = 100 - sum(old.values())
    return charts.bars(now, "% of values", old)


def _title(name: str) -> str:
    return {"n_tokens": "Tokens of a row", "n_windows": "Windows of a row"}.get(name, name)


def _map_chapter(seen: Observation, task: Task) -> list[tuple[str, str, list[Chart]]]:
    """Vectors on a plane, coloured by the kept column of text that has few values."""
    if not seen.rows.num_rows:
        return []
    good = seen.rows.filter(pc.is_null(seen.rows["error"]))
    chosen = (
        good.take(np.unique(np.linspace(0, good.num_rows - 1, N_MAPPED).astype(np.int64))) if good.num_rows else good
    )
    vectors = task.vectors(chosen) if chosen.num_rows else None
    if vectors is None or len(vectors) != chosen.num_rows or len(vectors) < 3:
        return []
    groups = next((chosen[name].to_pylist() for name in chosen.column_names if _is_group(chosen[name])), None)
    svg = charts.points(charts.flat_map(vectors), groups)
    note = f"{len(vectors):,} vectors on their first two principal components."
    return [("Map", note, [("Vectors", Markup(svg))])]


def _is_group(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(column.type)) and 2 <= pc.count_distinct(column).as_py() <= 64


@dataclass(frozen=True)
class _Piece:
    """Characters with the label behind them, if a mark ends there; `tint` is None outside of all marks."""

    text: str
    tint: int | None = None
    label: str = ""


@dataclass(frozen=True)
class _Row:
    """A `Shown` as the template draws it."""

    title: str
    pieces: list[_Piece]
    bars: Sequence[Bar]
    facts: Sequence[tuple[str, str]]


def _rows(output: Location, plan: Plan, task: Task) -> list[_Row]:
    try:
        samples = with_inputs(sample_rows(output, plan, N_ROWS), plan, task)
    except ShardError:
        return []  # A part is damaged: the page says how many are, and nothing in it depends on these rows.
    shown = [view(sample, plan, task) for sample in samples]
    tint_of = tints((mark.label for each in shown for mark in each.marks), len(charts.GROUP_COLOURS))
    return [_Row(each.title, list(_pieces(each, tint_of)), each.bars[:N_ROW_BARS], each.facts) for each in shown]


def _pieces(shown: Shown, tint_of: Mapping[str, int]) -> Iterator[_Piece]:
    """The text, cut where marks begin and end; of a long one the parts around its marks."""
    stop = 0
    for part in excerpts(shown.text, shown.marks):
        if part.start > stop:
            yield _Piece(" … ")
        for piece in pieces(shown.text, shown.marks, part.start, part.stop):
            label = " ".join(mark.label for mark in piece.closes)
            yield _Piece(piece.text, tint_of[piece.marks[0].label] if piece.marks else None, label)
        stop = part.stop
    if stop < len(shown.text):
        yield _Piece(" …")


def _yaml(values: dict[str, Any]) -> str:
    sink = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(values, sink)
    return sink.getvalue()
