"""Draws a `Shown` on a terminal with rich: marks coloured in the text, bars, facts, and a legend of the colours.

Nothing of a text reaches the terminal as it stands: what could move the cursor or turn the line around is escaped.
Right-to-left text has lines of its own, so that it cannot reorder what stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from rembert_ray.plan import Plan
from rembert_ray.report.sample_view import nearest_of, view
from rembert_ray.report.samples import Sample
from rembert_ray.tasks.base import Task
from rembert_ray.text.shown import Bar, Mark, Shown, excerpts, pieces, tints

# Legible on a dark and on a light terminal: the background is set with the letters' colour.
PALETTE = tuple(
    f"black on {name}"
    for name in (
        *("sky_blue1", "light_salmon1", "pale_green3", "plum2", "khaki1", "aquamarine1", "light_pink1"),
        *("light_steel_blue1", "gold1", "dark_olive_green2", "thistle1", "orange1", "turquoise2", "grey78"),
    )
)
BAR_CELLS = 24
LABEL_CELLS = 44
FACT_CHARACTERS = 200
MOST_BARS = 5
# Of more marks in one text only the labels are shown: numbers would drown it.
MOST_SCORES = 12
NEAREST_CHARACTERS = 60
# They join letters of Persian, of Indic scripts and parts of emoji, and move nothing.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """A text for a terminal, character by character: blanks for white space, escapes for what it would obey."""
    return "".join(
        " " if char.isspace() else char if char.isprintable() or char in _JOINERS else ascii(char)[1:-1]
        for char in text
    )


def label_styles(shown: Iterable[Shown]) -> dict[str, str]:
    """A style for each label of these rows, the same one for a label each time."""
    numbers = tints((mark.label for one in shown for mark in one.marks), len(PALETTE))
    return {label: PALETTE[number] for label, number in numbers.items()}


def draw(shown: Shown, styles: Mapping[str, str]) -> Iterator[Text]:
    """The lines of a row; `styles` are those of `label_styles`."""
    if shown.title:
        yield Text(visible(shown.title[:FACT_CHARACTERS]), style="bold")
    if shown.text:
        yield _marked(shown.text, shown.marks, styles)
    groups = {bar.group: None for bar in shown.bars}
    for group in groups:
        bars = [bar for bar in shown.bars if bar.group == group]
        if group:
            yield Text(visible(group), style="italic")
        cells = max(cell_len(visible(bar.label[:FACT_CHARACTERS])) for bar in bars[:MOST_BARS])
        yield from (_bar(bar, min(cells, LABEL_CELLS)) for bar in bars[:MOST_BARS])
        if len(bars) > MOST_BARS:
            yield Text(f"  ... {len(bars) - MOST_BARS} more", style="dim")
    if shown.facts:
        yield _facts(shown.facts)


def draw_samples(samples: Sequence[Sample], plan: Plan, task: Task) -> Iterator[Text]:
    """Rows of an output, each under the place that it came from; the legend last."""
    shown = [view(sample, plan, task) for sample in samples]
    for number, (other, cosine) in nearest_of(samples, task).items():
        text = shown[other].text or f"row {samples[other].row} of shard {samples[other].shard}"
        shown[number] = shown[number].plus(("nearest here", f"{cosine:.3f} {text[:NEAREST_CHARACTERS]}"))
    styles = label_styles(shown)
    for sample, one in zip(samples, shown, strict=True):
        yield Text(visible(f"shard {sample.shard} row {sample.row}, {sample.source} row {sample.source_row}"), "dim")
        yield from draw(one, styles)
        yield Text("")
    if styles:
        yield legend(styles)


def legend(styles: Mapping[str, str]) -> Text:
    """The labels in their colours."""
    return Text(" ").join(Text(f" {visible(label)} ", style=style) for label, style in styles.items())


def _marked(text: str, marks: tuple[Mark, ...], styles: Mapping[str, str]) -> Text:
    """The text, or what is to be seen of it, with a mark's label behind it."""
    line = Text(overflow="fold")
    shown = excerpts(text, marks)
    has_scores = (
        sum(any(mark.start < part.stop and mark.end > part.start for part in shown) for mark in marks) <= MOST_SCORES
    )
    for number, part in enumerate(shown):
        line.append("... " if number or part.start else "", style="dim")
        for piece in pieces(text, marks, part.start, part.stop):
            inner = piece.marks[0] if piece.marks else None
            style = styles.get(inner.label, "reverse") if inner else ""
            line.append(visible(piece.text), style=f"{style} underline" if len(piece.marks) > 1 else style)
            for mark in piece.closes:
                line.append(f" {visible(mark.label)}{_score(mark.score) if has_scores else ''} ", style="italic dim")
        line.append(" ..." if part.stop < len(text) and number == len(shown) - 1 else "", style="dim")
    return line


def _score(score: float | None) -> str:
    # A label that is sure needs no number beside it.
    return "" if score is None or score >= 0.995 else f" {score:.2f}"


def _bar(bar: Bar, cells: int) -> Text:
    share = min(max(bar.share, 0.0), 1.0)
    full = round(share * BAR_CELLS)
    label = visible(bar.label[:FACT_CHARACTERS])
    if cell_len(label) > cells:
        label = set_cell_size(label, cells - 3) + "..."
    line = Text("  " + set_cell_size(label, cells) + " ", no_wrap=True, overflow="crop")
    line.append("█" * full, style="cyan")
    line.append("·" * (BAR_CELLS - full), style="dim")
    return line.append(f" {bar.share:.3f}")


def _facts(facts: Iterable[tuple[str, str]]) -> Text:
    line = Text(overflow="fold")
    for number, (name, value) in enumerate(facts):
        shown = value if len(value) <= FACT_CHARACTERS else value[:FACT_CHARACTERS] + "..."
        line.append("   " if number else "").append(f"{visible(name)} ", style="dim").append(visible(shown))
    return line
