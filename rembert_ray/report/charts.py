"""The charts of the report as SVG text, drawn by matplotlib: no script, no network, colours from the page.

Each is small enough for a phone. Colours are placeholders that become CSS variables, so that one chart is readable in
light and in dark. Imported by the report alone: matplotlib takes half a second.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rembert_ray.errors import printable
from rembert_ray.report.profile import Numbers

WIDTH_IN, HEIGHT_IN, BAR_IN = 4.6, 2.3, 0.2
N_BINS = 24
LONGEST_NAME = 26
INK, FAINT, NOW, BEFORE = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "--ink", FAINT: "--faint", NOW: "--now", BEFORE: "--before"}
# Told apart also by those who see few colours (Okabe and Ito, 2008); readable on black and on white.
GROUP_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8a00", "#7a7a7a")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rembert-ray",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_numbers = count()


def bars(values: Mapping[str, float], unit: str = "", before: Mapping[str, float] | None = None) -> str:
    """A horizontal bar for each name, the first on top; with `before` a thinner one beside each."""
    n_sides = 1 if before is None else 2
    figure, axes = _axes(0.55 + BAR_IN * n_sides * max(len(values), 1))
    places = np.arange(len(values), dtype=float)
    height = 0.75 / n_sides
    axes.barh(places - (n_sides - 1) * height / 2, list(values.values()), height, color=NOW)
    if before is not None:
        axes.barh(places + height / 2, [before.get(name, 0.0) for name in values], height, color=BEFORE)
    axes.set_yticks(places, [_cut(name) for name in values])
    axes.margins(y=0.03)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.xaxis.set_major_formatter(_short_number)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return _svg(figure)


def histogram(now: Numbers, before: Numbers | None = None, unit: str = "") -> str:
    """How many per cent of the values lie where; lengths and other wide ranges on a logarithmic axis."""
    sides = [side for side in (now, before) if side is not None and side.n]
    low, high = min(side.quantiles[0] for side in sides), max(side.quantiles[-1] for side in sides)
    is_wide = low >= 0 and high > 50 and high > 20 * max(low, 1)
    edges = np.linspace(low, high, N_BINS + 1) if high > low else np.array([low - 0.5, low + 0.5])
    if is_wide:
        edges = np.unique(np.geomspace(max(low, 1), high, N_BINS + 1))
    figure, axes = _axes(HEIGHT_IN)
    axes.stairs(100 * _shares(now, edges), edges, fill=True, color=NOW)
    if before is not None and before.n:
        axes.stairs(100 * _shares(before, edges), edges, color=BEFORE, linewidth=1.6)
    if is_wide:
        axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_ylabel("% of values")
    axes.xaxis.set_major_formatter(_short_number)
    axes.minorticks_off()
    return _svg(figure)


def steps(edges: Sequence[float], values: Sequence[float], unit: str) -> str:
    """A value for each stretch of time; `edges` are seconds, shown as the largest unit that fits."""
    scale, name = next(
        (s, n) for s, n in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if edges[-1] >= 2 * s or s == 1
    )
    figure, axes = _axes(HEIGHT_IN)
    axes.stairs(values, np.array(edges) / scale, fill=True, color=NOW)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{name} since the run began")
    axes.set_ylabel(unit)
    axes.yaxis.set_major_formatter(_short_number)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return _svg(figure)


def points(places: NDArray[np.float64], groups: Sequence[str] | None) -> str:
    """A map: `places` `[points, 2]`, coloured by group, the most frequent ones told apart."""
    figure, axes = _axes(3.6)
    names = [""] * len(places) if groups is None else [str(group) for group in groups]
    frequent = sorted(set(names), key=lambda name: (-names.count(name), name))
    shown = frequent[: len(GROUP_COLOURS) - 1] if len(frequent) > len(GROUP_COLOURS) else frequent
    for number, name in enumerate(shown):
        is_here = np.array([other == name for other in names])
        axes.scatter(
            places[is_here, 0], places[is_here, 1], s=5, color=GROUP_COLOURS[number], label=_cut(name), linewidths=0
        )
    if rest := set(names) - set(shown):
        is_here = np.array([name in rest for name in names])
        axes.scatter(
            places[is_here, 0],
            places[is_here, 1],
            s=4,
            color=GROUP_COLOURS[-1],
            label=f"{len(rest)} others",
            linewidths=0,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if groups is not None:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0),
            ncols=3,
            frameon=False,
            fontsize=8,
            handletextpad=0,
            markerscale=2.5,
        )
    return _svg(figure)


def flat_map(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Vectors `[points, dimensions]` on a plane `[points, 2]`: their first two principal components."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    found = np.zeros((len(vectors), 2))
    found[:, : len(directions)] = centred @ directions.T
    return found


def _shares(side: Numbers, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of values in each bin, from the quantiles; what is below the first edge counts to the first bin."""
    below = np.interp(edges, side.quantiles, np.linspace(0, 1, len(side.quantiles)))
    below[0] = 0
    below[-1] = 1
    return np.diff(below)


def _axes(height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    sink = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # One page holds many charts, and ids count for the page.
    own = f"c{next(_numbers)}-"
    text = re.sub(r'\bid="', f'id="{own}', text)
    text = text.replace("url(#", f"url(#{own}").replace('href="#', f'href="#{own}')
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r'<svg ([^>]*?)width="[^"]*" ?', r"<svg \1", re.sub(r' height="[^"]*"', "", text, count=1), count=1)


def _short_number(value: float, place: object = None) -> str:
    """`20000` -> `20k`."""
    for power, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:g}{unit}"
    return f"{value:.6g}"


def _cut(name: str) -> str:
    # matplotlib reads text between dollar signs as a formula.
    name = printable(name).replace("$", r"\$")
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
