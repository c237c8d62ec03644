"""The map of layers: the role of each in the dense decoder, and the pruned one below it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from interlace.plan.record import Group, Plan
from interlace.printable import one_line
from interlace.report.facts.decision import asked, notes, number, outcome, score_name
from interlace.report.facts.roles import layer_roles, roles_present, stretches
from interlace.report.figures.shapes import box, cell_text, strand
from interlace.report.figures.style import INK, MUTED, ROLE_COLOURS, drawn, label

CELL = 0.36  # height of a layer, inches; everything vertical is in inches
LINE = 0.19  # of text
LEVEL = 0.46  # a bracket and its label
DENSE, PRUNED, LEGEND = 1.24, 0.56, 0.12  # lower edges of the rows


def layer_map_figure(plan: Plan, path: Path) -> None:
    """Draw the dense decoder with the role of each layer, and the pruned one below it.

    Groups are bracketed, each under its place in the order of decision and its score.

    Args:
        plan: which layers are dropped, tuned and frozen.
        path: where to write, .png, .svg or .pdf.
    """
    width = float(np.clip(1.6 + 0.36 * plan.n_layers, 8, 18))
    cells_per_inch = (plan.n_layers + 0.6) / width
    size = float(np.clip(24 / cells_per_inch, 4.5, 9.5))
    every = [outcome(plan), *notes(plan), *_order(plan)]
    text_lines = [line for note in every for line in textwrap.wrap(one_line(note), int(13 * width))]
    levels = label_levels(plan, min(size, 8) * 0.6 / 72 * cells_per_inch)
    height = DENSE + CELL + _above(plan, levels) + LINE * len(text_lines) + 0.38
    with drawn(path, width, height, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.3, plan.n_layers + 0.3)
        axes.set_ylim(0, height)
        _decoders(axes, plan, size)
        _brackets(axes, plan, levels, min(size, 8))
        margin = 0.06
        title = label(asked(plan), 200)
        axes.text(margin, height - 0.24, title, fontsize=12, fontweight="bold", va="center")
        for row, line in enumerate(text_lines):
            y = height - 0.5 - LINE * row
            axes.text(margin, y, line, fontsize=8.5, color=MUTED, va="center")
        _legend(axes, plan, margin, 1.7 * cells_per_inch)


def _decoders(axes: Axes, plan: Plan, size: float) -> None:
    roles = layer_roles(plan)
    for layer, role in enumerate(roles):
        box(axes, layer + 0.06, DENSE, 0.88, CELL, ROLE_COLOURS[role])
        cell_text(axes, layer + 0.5, DENSE + CELL / 2, layer, role, size)
    start = (plan.n_layers - len(plan.keep)) / 2  # the shorter decoder, centred
    for position, layer in enumerate(plan.keep):
        x, role = start + position, roles[layer]
        box(axes, x + 0.06, PRUNED, 0.88, CELL, ROLE_COLOURS[role])
        cell_text(axes, x + 0.5, PRUNED + CELL / 2, position, role, size)
        top, bottom = (layer + 0.5, DENSE - 0.03), (x + 0.5, PRUNED + CELL + 0.03)
        strand(axes, top, bottom, role, vertical=True)
    caption = "positions after pruning" if plan.drop else "no layer is dropped"
    axes.text(start + 0.06, PRUNED - 0.06, caption, color=MUTED, fontsize=8, va="top")


def _label(plan: Plan, order: int, group: Group) -> str:
    """`triplet 1` over `$S_3$ = 0.9739`; of a layer on its own, its place and its score."""
    name = f"{group.kind} {order}" + (f", round {group.round}" if plan.rounds > 1 else "")
    if group.score is None:
        return name if group.span > 1 else ""
    return f"{name}\n{_what(plan, group)} = {number(group.score)}"


def _what(plan: Plan, group: Group) -> str:
    """Name a group's score, with its index set below the line."""
    name = score_name(plan, group)
    return f"$S_{{{name[2:]}}}$" if name.startswith("S_") else name


def label_levels(plan: Plan, letter: float) -> list[int]:
    """Stack the groups' labels above the decoder so that none covers another.

    Args:
        plan: whose groups.
        letter: width of a letter, layers.
    """
    occupied: list[list[tuple[float, float]]] = []
    levels = []
    for order, group in enumerate(plan.groups, start=1):
        lines = _label(plan, order, group).replace("$", "").replace("{", "").replace("}", "")
        text = letter * max(map(len, lines.split("\n")))
        middle = (group.first + group.layers[-1] + 1) / 2
        half = max(text, group.layers[-1] + 1 - group.first) / 2
        begin, end = middle - half, middle + half
        level = 0
        while level < len(occupied) and any(a < end and begin < b for a, b in occupied[level]):
            level += 1
        occupied += [[]] * (level == len(occupied))
        occupied[level] = [*occupied[level], (begin, end)]
        levels.append(level)
    return levels


def _alone(plan: Plan) -> bool:
    """Tell if all groups are single layers."""
    return all(group.span == 1 for group in plan.groups)


def _order(plan: Plan) -> list[str]:
    """Explain the labels above layers dropped one by one; nothing where no score was used."""
    ranked = [group for group in plan.groups if group.score is not None]
    if not ranked or not _alone(plan):
        return []
    return [
        f"above each dropped layer: its place in the order, and its {score_name(plan, ranked[0])}"
    ]


def _ranked(order: int, group: Group) -> str:
    return "" if group.score is None else f"{order}:  {number(group.score)}"


def _above(plan: Plan, levels: list[int]) -> float:
    """Return the room for the labels, inches."""
    if not _alone(plan):
        return 0.12 + LEVEL * (max(levels) + 1)
    return 0.1 + 0.062 * max((len(_ranked(10, group)) for group in plan.groups), default=0)


def _brackets(axes: Axes, plan: Plan, levels: list[int], size: float) -> None:
    top = DENSE + CELL
    for order, (group, level) in enumerate(zip(plan.groups, levels, strict=True), start=1):
        if _alone(plan):
            axes.text(
                group.first + 0.5, top + 0.05, _ranked(order, group), rotation=90, ha="center",
                va="bottom", fontsize=min(size, 7),
            )  # fmt: skip
            continue
        y = top + 0.1 + LEVEL * level
        for run in stretches(group.layers):
            ends = (run.start + 0.1, run.stop - 0.1)
            axes.plot(
                [ends[0], *ends, ends[1]], [y - 0.05, y, y, y - 0.05], color=INK, linewidth=1.2
            )
        axes.plot([group.first + 0.1, group.layers[-1] + 0.9], [y, y], color=INK, linewidth=0.5)
        middle = (group.first + group.layers[-1] + 1) / 2
        axes.text(
            middle, y + 0.04, _label(plan, order, group), ha="center", va="bottom", fontsize=size,
            linespacing=1.25, parse_math=True,
        )  # fmt: skip


def _legend(axes: Axes, plan: Plan, x: float, step: float) -> None:
    for role in roles_present(plan):
        box(axes, x, LEGEND, 0.6, 0.13, ROLE_COLOURS[role])
        text = f"{role.meaning} ({layer_roles(plan).count(role)})"
        axes.text(x + 0.8, LEGEND + 0.065, text, va="center", fontsize=9)
        x += step
