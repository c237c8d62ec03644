"""The training set by source, and the rows that were skipped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from interlace.data.datasheet import Datasheet
from interlace.report.figures.style import LINE_COLOURS, MUTED, drawn, label

_MOST = 30  # sources that have a bar of their own
_PANELS = {"rows": "rows", "images": "images", "turns": "turns", "words": "words"}


def datasheet_figure(sheet: Datasheet, path: Path) -> None:
    """Draw rows, images, turns and words by source; below, odd rows.

    Args:
        sheet: of the draw.
        path: where to write, .png, .svg or .pdf.
    """
    sources = _largest(sheet.by_source)
    odd = _odd(sheet)
    bars = [max(len(sources), 3), *([len(odd)] if odd else [])]
    heights = [0.8 + 0.24 * count for count in bars]  # inches: the axis below, and the bars
    with drawn(path, 12, max(sum(heights), 1.6 + 0.24 * sum(bars))) as figure:
        rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        panels = rows[0].subplots(1, len(_PANELS), sharey=True)
        for axes, (name, unit) in zip(panels, _PANELS.items(), strict=True):
            _bars(axes, [tally.get(name, 0) for _, tally in sources], [name for name, _ in sources])
            axes.set_xlabel(unit)
        panels[0].set_title(_headline(sheet), loc="left")
        text_only = [tally.get("text_only", 0) for _, tally in sources]
        panels[0].barh(np.arange(len(sources)), text_only, color=LINE_COLOURS[3], height=0.7)
        if odd:
            axes = rows[1].subplots()
            axes.margins(x=0.08)
            _bars(axes, list(odd.values()), list(odd), MUTED)
            axes.bar_label(axes.containers[0], [f" {rows:,}" for rows in odd.values()])
            axes.set_xlabel("rows skipped, and odd rows kept")


def _headline(sheet: Datasheet) -> str:
    return (
        f"{sheet.rows:,} training rows of {len(sheet.by_source)} sources,"
        f" {100 * sheet.text_only_share:.0f}% text-only (yellow)"
    )


def _largest(by_source: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    """Return the sources with the most rows, and the sum of the others."""
    order = sorted(by_source, key=lambda name: (-by_source[name]["rows"], name))
    largest = [(name, by_source[name]) for name in order[:_MOST]]
    if rest := [by_source[name] for name in order[_MOST:]]:
        names = {name for tally in rest for name in tally}
        sums = {name: sum(tally.get(name, 0) for tally in rest) for name in names}
        largest.append((f"{len(rest)} others", sums))
    return largest


def _odd(sheet: Datasheet) -> dict[str, int]:
    skipped = {f"skipped: {reason}": rows for reason, rows in sheet.left_out.items()}
    return skipped | {f"kept: {reason}": rows for reason, rows in sheet.odd.items()}


def _bars(axes: Axes, values: list[int], names: list[str], colour: str = LINE_COLOURS[0]) -> None:
    positions = np.arange(len(values))
    axes.barh(positions, values, color=colour, height=0.7)
    axes.set_yticks(positions, [label(name) for name in names])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: _brief(value))
    axes.locator_params(axis="x", nbins=4, integer=True)


def _brief(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
