"""The drawing of what happens to the layers: scored, selected, pruned and healed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from interlace.plan.record import Plan
from interlace.report.facts.roles import Role, layer_roles, roles_present, stretches
from interlace.report.facts.scale import nines
from interlace.report.figures.shapes import box, cell_text, strand
from interlace.report.figures.style import HAIRLINE, INK, MUTED, ROLE_COLOURS, SPAN_COLOURS, drawn
from interlace.scores.table import Scores

BASE, TOP = 9.0, 57.0  # the dense decoder's lower and upper end, figure units
WIDE = 11.0  # a layer, figure units
COLUMNS = (5.0, 44.0, 73.0)  # left edges: dense, selected, healed
PANEL = 94.0  # left edge of the explanation


def pipeline_figure(path: Path, scores: Scores, plan: Plan, *, with_images: bool = True) -> None:
    """Draw what happens: layers are scored, triplets selected, one of each dropped, one tuned.

    Args:
        path: where to write, .png, .svg or .pdf.
        scores: whose `S_1` to draw.
        plan: the decision on these scores.
        with_images: the model has a vision tower.
    """
    with drawn(path, 12.0, 6.0, layout=None) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, 126)
        axes.set_ylim(3.0, 66.0)
        _headings(axes, plan)
        pitch = (TOP - BASE) / plan.n_layers
        _scored_column(axes, scores, pitch)
        _selected_column(axes, plan, pitch)
        _healed_column(axes, plan, pitch)
        for x, end in zip(COLUMNS, (TOP, TOP, BASE + len(plan.keep) * pitch), strict=True):
            _ends(axes, x, end, with_images)
        _explanation(axes, plan, scores.deepstack_layers)


def _headings(axes: Axes, plan: Plan) -> None:
    triplets = any(group.kind == "triplet" for group in plan.groups)
    texts = (
        ("1", "Score", "how little does a layer change its input?"),
        ("2", "Select", "the most redundant triplets" if triplets else f"by {plan.method}"),
        ("3", "Prune and heal", f"{plan.n_layers} \u2192 {len(plan.keep)} layers"),
    )
    for x, (number, title, subtitle) in zip(COLUMNS, texts, strict=True):
        axes.text(
            x + 0.9, 63.6, number, color="white", fontsize=11, fontweight="bold", ha="center",
            va="center", bbox={"boxstyle": "circle,pad=0.28", "facecolor": INK, "linewidth": 0},
        )  # fmt: skip
        axes.text(x + 3.2, 63.6, title, fontsize=13, fontweight="bold", va="center")
        axes.text(x + 3.2, 61.2, subtitle, fontsize=8.8, color=MUTED, va="center")


def _layer(axes: Axes, x: float, y: float, pitch: float, label: int, role: Role) -> None:
    box(axes, x, y + 0.1 * pitch, WIDE, 0.8 * pitch, ROLE_COLOURS[role])
    size = min(7.5, 4.2 * pitch)
    cell_text(axes, x + WIDE / 2, y + 0.49 * pitch, label, role, size)


def _ends(axes: Axes, x: float, end: float, with_images: bool) -> None:
    """Draw the parts that stay as they are: vision tower and embeddings below, the head above."""
    below = "vision tower,\nembeddings" if with_images else "embeddings"
    plain = {"edgecolor": HAIRLINE, "linewidth": 1.0}
    for y, height, text in (
        (BASE - 4.4, 3.8, below),
        (end + 0.5, 2.1, "head"),
    ):
        box(axes, x, y, WIDE, height, "white", **plain)
        axes.text(
            x + WIDE / 2, y + height / 2, text, ha="center", va="center", fontsize=7, color=MUTED,
            linespacing=1.15,
        )  # fmt: skip


def _scored_column(axes: Axes, scores: Scores, pitch: float) -> None:
    layer = scores.of_span(1)
    reach = nines(np.array(list(layer.values())))
    low, high = float(reach.min()), float(reach.max())
    for index, value in zip(layer, reach, strict=True):
        y = BASE + index * pitch
        _layer(axes, COLUMNS[0], y, pitch, index, Role.FREEZE)
        length = 2 + 14 * (float(value) - low) / max(high - low, 1e-9)
        bar = SPAN_COLOURS[1]
        box(axes, COLUMNS[0] + WIDE + 1.2, y + 0.26 * pitch, length, 0.48 * pitch, bar)
    axes.text(
        COLUMNS[0] + WIDE + 1.2,
        BASE - 1.3,
        "redundancy \u2192",
        fontsize=8,
        color=MUTED,
        va="center",
    )
    middle = (BASE + TOP) / 2
    axes.add_patch(
        FancyArrowPatch(
            (COLUMNS[1] - 7.5, middle), (COLUMNS[1] - 2.0, middle), color=HAIRLINE, linewidth=3,
            arrowstyle="-|>", mutation_scale=18,
        )
    )  # fmt: skip


def _selected_column(axes: Axes, plan: Plan, pitch: float) -> None:
    for index, role in enumerate(layer_roles(plan)):
        _layer(axes, COLUMNS[1], BASE + index * pitch, pitch, index, role)
    for group in plan.groups:
        for run in stretches(group.layers) if group.span > 1 else ():
            bottom, height = run.start + 0.03, len(run) - 0.06
            outline = (COLUMNS[1] - 0.7, BASE + bottom * pitch, WIDE + 1.4, height * pitch)
            box(axes, *outline, "none", edgecolor=INK, linewidth=1.2, zorder=5)
    for layer in plan.drop:
        x, y = COLUMNS[1] + WIDE + 2.0, BASE + (layer + 0.47) * pitch
        axes.text(
            x, y, "\u00d7", color=ROLE_COLOURS[Role.DROP], fontsize=13, fontweight="bold",
            ha="center", va="center",
        )  # fmt: skip


def _healed_column(axes: Axes, plan: Plan, pitch: float) -> None:
    roles = layer_roles(plan)
    for position, layer in enumerate(plan.keep):
        y, role = BASE + position * pitch, roles[layer]
        _layer(axes, COLUMNS[2], y, pitch, position, role)
        start = (COLUMNS[1] + WIDE + 0.9, BASE + (layer + 0.5) * pitch)
        strand(axes, start, (COLUMNS[2] - 0.4, y + 0.5 * pitch), role, vertical=False)
        if role is Role.TUNE:
            glow = (COLUMNS[2] - 0.45, y + 0.02 * pitch, WIDE + 0.9, 0.96 * pitch)
            box(axes, *glow, ROLE_COLOURS[Role.TUNE], alpha=0.28, zorder=2)


def _explanation(axes: Axes, plan: Plan, deepstack_layers: int) -> None:
    """Explain the colours in the panel on the right; a triplet's layers share an outline."""
    triplets = any(group.kind == "triplet" for group in plan.groups)
    entry = plan.protected == list(range(deepstack_layers))
    texts = {
        Role.ANCHOR: ("frozen anchor", "holds the output in place"),
        Role.TUNE: ("tuned", "learns to do the work of both" if triplets else "trained to heal"),
        Role.DROP: ("dropped", "the more redundant of the two" if triplets else "taken out"),
        Role.PROTECTED: ("protected", "image features enter here" if entry else "never dropped"),
        Role.FREEZE: ("frozen", "in no triplet: left as it is" if triplets else "left as it is"),
    }
    heading = "Inside a triplet" if triplets else "What happens to a layer"
    axes.text(PANEL, 53.2, heading, fontsize=11, fontweight="bold", va="center")
    heights = [46.6, 41.4, 36.2, 26.2, 20.4] if triplets else [46.6, 41.4, 36.2, 31.0, 25.8]
    if triplets:
        box(axes, PANEL - 0.2, 35.2, 9.4, 16.0, "none", edgecolor=INK, linewidth=1.2)
    present = [role for role in texts if role in roles_present(plan)]
    for role, y in zip(present, heights, strict=False):
        title, subtitle = texts[role]
        box(axes, PANEL + 0.8, y, 7.4, 4.0, ROLE_COLOURS[role])
        axes.text(PANEL + 10.6, y + 2.9, title, fontsize=9.5, fontweight="bold", va="center")
        axes.text(PANEL + 10.6, y + 1.0, subtitle, fontsize=8.3, color=MUTED, va="center")
    axes.text(
        PANEL, 13.6, "Only the tuned layers are trained.\nThe result is a stock checkpoint.",
        fontsize=9, va="top", linespacing=1.5,
    )  # fmt: skip
