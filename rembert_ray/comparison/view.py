"""The changed rows of a comparison for a person: drawn on a terminal, or a line for each of the two results.

Only what is not the same in both is shown, so that the text is cut around the marks that changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rich.text import Text

from rembert_ray.comparison.result import Change, Comparison
from rembert_ray.comparison.sides import Side
from rembert_ray.errors import printable
from rembert_ray.report.sample_view import kept_names, line_of, view
from rembert_ray.report.shown_terminal import draw, label_styles, legend, visible
from rembert_ray.text.shown import Mark, Shown

MOST_MARKS = 12


def draw_changes(comparison: Comparison) -> Iterator[Text]:
    """Lines for a terminal, the legend last."""
    pairs = [
        (name, change, _views(comparison, change)) for name, changes in comparison.changes.items() for change in changes
    ]
    styles = label_styles(shown for _, _, views in pairs for shown in views)
    for name, change, views in pairs:
        of = f", {name}" if len(comparison.changes) > 1 else ""
        yield Text(visible(f"{_place(comparison.new, change)}{of}"), style="dim")
        for word, shown in zip(("old", "new"), views, strict=True):
            yield Text(word, style="bold")
            yield from draw(shown, styles)
        yield Text("")
    if styles:
        yield legend(styles)


def plain_changes(comparison: Comparison) -> Iterator[str]:
    """Three lines for each changed row: where it is, what was its result, what is it now."""
    for changes in comparison.changes.values():
        for change in changes:
            yield printable(f"row         {_place(comparison.new, change)}")
            views = _views(comparison, change)
            rows = ((comparison.old, change.old), (comparison.new, change.new))
            for word, (side, sample), shown in zip(("old", "new"), rows, views, strict=True):
                is_marked = any(one.marks for one in views)
                line = _marks(shown) if is_marked else line_of(sample, side.plan, side.task)
                yield f"  {word:<9} {printable(line)}"


def _views(comparison: Comparison, change: Change) -> tuple[Shown, Shown]:
    old = view(change.old, comparison.old.plan, comparison.old.task)
    new = view(change.new, comparison.new.plan, comparison.new.task)
    common = set(old.facts) & set(new.facts)
    old, new = (replace(one, facts=tuple(fact for fact in one.facts if fact not in common)) for one in (old, new))
    if old.text != new.text:
        return old, new
    before, after = ({_what(mark) for mark in shown.marks} for shown in (old, new))
    old = replace(old, marks=tuple(mark for mark in old.marks if _what(mark) not in after))
    new = replace(new, marks=tuple(mark for mark in new.marks if _what(mark) not in before))
    # One text is enough where nothing is marked in it.
    return old, new if old.marks or new.marks else replace(new, title="", text="")


def _what(mark: Mark) -> tuple[int, int, str]:
    return mark.start, mark.end, mark.label


def _marks(shown: Shown) -> str:
    found = [f"{shown.text[mark.start : mark.end]}/{mark.label}" for mark in shown.marks[:MOST_MARKS]]
    more = len(shown.marks) - MOST_MARKS
    return " ".join(found) + (f" ... {more} more" if more > 0 else "") or "nothing there"


def _place(side: Side, change: Change) -> str:
    sample = change.new
    kept = "".join(f", {name} {sample.values[name]}" for name in kept_names(side.plan)[:2] if name in sample.values)
    cosine = "" if change.cosine is None else f", cosine {change.cosine:.5f}"
    return f"{sample.source} row {sample.source_row}{kept}{cosine}"
