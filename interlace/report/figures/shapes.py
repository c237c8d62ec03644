"""Shapes that drawings of layers share: boxes, the numbers in them, strands between them."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline

from interlace.report.facts.roles import Role
from interlace.report.figures.style import HAIRLINE, INK, ROLE_COLOURS

DARK = frozenset({Role.DROP, Role.TUNE, Role.ANCHOR, Role.PROTECTED})  # white text on these


def box(
    axes: Axes, x: float, y: float, width: float, height: float, face: str, **kwargs: Any
) -> None:
    """Draw a rounded box with its lower left corner at (x, y), data units."""
    corner = 0.18 * min(width, height)
    style = f"round,pad=0,rounding_size={corner}"
    kwargs = {"linewidth": 0, "zorder": 3} | kwargs
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, **kwargs))


def cell_text(axes: Axes, x: float, y: float, layer: int, role: Role, size: float) -> None:
    """Write a layer's number in the middle of its box."""
    colour = "white" if role in DARK else INK
    axes.text(x, y, str(layer), ha="center", va="center", color=colour, fontsize=size, zorder=4)


def strand(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], role: Role, *, vertical: bool
) -> None:
    """Draw a soft line from a layer to its new position."""
    (x0, y0), (x1, y1) = start, end
    bends = (
        [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)]
        if vertical
        else [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)]
    )
    colour = ROLE_COLOURS[role] if role is not Role.FREEZE else HAIRLINE
    outline = Outline(
        [start, *bends, end], [Outline.MOVETO, Outline.CURVE4, Outline.CURVE4, Outline.CURVE4]
    )
    axes.add_patch(
        PathPatch(outline, facecolor="none", edgecolor=colour, linewidth=1.3, alpha=0.75, zorder=1)
    )
