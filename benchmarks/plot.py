"""The README's plot: useful tokens a second of the engine and of its peers on corpus L, as an SVG.

    python -m benchmarks.engine --corpus L --json out/bench/engine.json
    python -m benchmarks.plot out/bench/engine.json benchmarks/engine.svg

The background is transparent and the greys stand out from white and from black, for pages in light and in dark mode.
It must not measure anything: a bar is the best round of a row of the JSON file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

CORPUS = "L"
NOT_A_CONTENDER = "roof"
OURS_COLOUR, PEER_COLOUR, TEXT_COLOUR = "#2f81f7", "#9aa4af", "#78828e"
WIDTH_INCHES, BAR_INCHES, FRAME_INCHES = 9.0, 0.36, 0.75


def read_rates(path: Path) -> dict[str, float]:
    """Tokens a second of the best round, by the name of the contender, in the order of the file: ours first.

    Raises:
        SystemExit: the file has no row of corpus L.
    """
    corpora = json.loads(path.read_text())["corpora"]
    rates = {
        row["name"]: row["tokens"] / min(row["seconds"])
        for row in corpora.get(CORPUS, [])
        if not row["name"].startswith(NOT_A_CONTENDER)
    }
    if not rates:
        raise SystemExit(f"{path} has no contender on corpus {CORPUS}; it has {', '.join(corpora) or 'nothing'}")
    return rates


def draw(rates: dict[str, float]) -> Figure:
    """A bar for each contender, ours at the top, then the fastest first."""
    ours, *others = rates
    names = [ours, *sorted(others, key=lambda name: -rates[name])]
    figure = Figure(figsize=(WIDTH_INCHES, FRAME_INCHES + BAR_INCHES * len(names)), layout="constrained")
    axes = figure.subplots()
    colours = [OURS_COLOUR if name == ours else PEER_COLOUR for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colours, height=0.68)
    labels = [
        f"{rates[name]:,.0f}" + ("" if name == ours else f"   {rates[ours] / rates[name]:.2f} x") for name in names
    ]
    axes.bar_label(bars, labels, padding=5, color=TEXT_COLOUR)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_title(
        "useful tokens a second, and how many times as fast ours is", loc="left", fontsize=10, color=TEXT_COLOUR
    )
    axes.tick_params(length=0, colors=TEXT_COLOUR)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    return figure


def main() -> None:
    """Read figures, write the image."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m benchmarks.plot RESULTS.json IMAGE.svg")
    found, image = map(Path, sys.argv[1:])
    # Text stays text, in the reader's own font; the same figures give the same bytes.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": CORPUS, "font.family": "sans-serif"}
    draw(read_rates(found)).savefig(image, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main()
