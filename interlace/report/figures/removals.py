"""The layers that each method would remove from the same decoder, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from interlace.plan.removals import Removal
from interlace.printable import one_line
from interlace.report.facts.decision import percent
from interlace.report.facts.roles import Role, layer_roles
from interlace.report.figures.style import MUTED, ROLE_COLOURS, drawn, label

SHOWN = {  # an anchor is kept as it is: here it counts as such
    Role.DROP: "dropped",
    Role.TUNE: "tuned",
    Role.PROTECTED: "protected",
    Role.ANCHOR: "kept",
    Role.FREEZE: "kept",
}
COLOURS = {
    "dropped": ROLE_COLOURS[Role.DROP],
    "tuned": ROLE_COLOURS[Role.TUNE],
    "protected": ROLE_COLOURS[Role.PROTECTED],
    "kept": "#E9ECF1",  # pale: the eye goes to what is removed
}
# Inches, of the map.
STRIP, GAP = 0.15, 0.11  # a strip of layers, and the room between two methods
TOP, BOTTOM = 0.92, 0.28  # above and below all strips
NAMES, COUNTS = 1.8, 0.62  # left and right of them
HEIGHTS = {"dropped": 0.13, "tuned": 0.07, "protected": 0.13, "kept": 0.13}  # of a layer's box
LETTER = 0.052  # of the smallest text


def removal_map(removals: Sequence[Removal], path: Path) -> None:
    """Draw a strip of layers per method and ratio, coloured by what becomes of each layer.

    Where a method cannot choose, its strip says why.

    Args:
        removals: of one decoder, by method and then by ratio; at least one.
        path: where to write, .png, .svg or .pdf.
    """
    methods = [list(group) for _, group in groupby(removals, key=attrgetter("method"))]
    n_layers, rows = removals[0].n_layers, len(methods[0])
    layers = float(np.clip(0.2 * n_layers, 5.6, 9.6))  # width of all
    pitch = layers / n_layers
    block = rows * STRIP + GAP
    width, height = NAMES + layers + COUNTS, TOP + BOTTOM + block * len(methods) - GAP
    with drawn(path, width, height, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)  # from the top down
        for index, group in enumerate(methods):
            _block(axes, group, TOP + block * index, n_layers, pitch)
        _frame(axes, n_layers, pitch, height)


def _block(axes: Axes, group: Sequence[Removal], top: float, n_layers: int, pitch: float) -> None:
    """Draw one method: its name, and for each ratio a strip or the reason that there is none."""
    end = NAMES + pitch * n_layers
    middle = top + len(group) * STRIP / 2
    axes.text(NAMES - 0.55, middle, label(group[0].method, 20), ha="right", va="center", fontsize=9)
    for row, removal in enumerate(group):
        y = top + (row + 0.5) * STRIP
        _small(axes, NAMES - 0.08, y, percent(removal.ratio), "right")
        if not removal.reason:
            axes.add_collection(_strip(removal, y, pitch))
            _small(axes, end + 0.3, y, str(len(removal.drop)), "right")
    if len({removal.reason for removal in group}) == 1:  # said once, for all ratios
        _small(axes, NAMES + 0.04, middle, _short(group[0].reason, end), "left")
        return
    for row, removal in enumerate(group):
        y = top + (row + 0.5) * STRIP
        _small(axes, NAMES + 0.04, y, _short(removal.reason, end), "left")


def _short(reason: str, end: float) -> str:
    return textwrap.shorten(one_line(reason), int((end - NAMES) / LETTER), placeholder=" ...")


def _small(axes: Axes, x: float, y: float, text: str, side: Literal["left", "right"]) -> None:
    axes.text(x, y, text, ha=side, va="center", fontsize=7, color=MUTED)


def _strip(removal: Removal, middle: float, pitch: float) -> PatchCollection:
    """Draw a box per layer, whose colour and height both tell its role."""
    gap = min(0.12 * pitch, 0.025)
    names = [SHOWN[role] for role in layer_roles(removal)]
    boxes = [
        (NAMES + layer * pitch + gap / 2, HEIGHTS[name], COLOURS[name])
        for layer, name in enumerate(names)
    ]
    cells = [Rectangle((x, middle - high / 2), pitch - gap, high) for x, high, _ in boxes]
    return PatchCollection(cells, facecolors=[colour for _, _, colour in boxes], linewidths=0)


def _frame(axes: Axes, n_layers: int, pitch: float, height: float) -> None:
    """Draw the title, the legend, and the layers' numbers above and below."""
    title = f"What each method removes from {n_layers} layers"
    axes.text(0.12, 0.24, title, fontsize=12, fontweight="bold", va="center")
    x = NAMES
    for name, colour in COLOURS.items():
        low, high = 0.5 - HEIGHTS[name] / 2, HEIGHTS[name]
        axes.add_patch(Rectangle((x, low), 0.16, high, facecolor=colour, linewidth=0))
        axes.text(x + 0.22, 0.5, name, fontsize=8.5, va="center")
        x += 0.45 + 0.075 * len(name)
    for y in (TOP - 0.12, height - BOTTOM + 0.12):
        axes.text(NAMES - 0.55, y, "layer", ha="right", va="center", fontsize=7, color=MUTED)
        for layer in range(0, n_layers, 5):
            middle = NAMES + (layer + 0.5) * pitch
            axes.text(middle, y, str(layer), ha="center", va="center", fontsize=7.5, color=MUTED)
    _small(axes, NAMES - 0.08, TOP - 0.12, "ratio", "right")
    _small(axes, NAMES + n_layers * pitch + 0.5, TOP - 0.12, "dropped", "right")
