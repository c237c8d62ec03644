"""Figures of the study on real weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from interlace.report.figures.style import HAIRLINE, INK, MUTED, SPAN_COLOURS, drawn
from studies.real_rows import PLAIN, Layer
from studies.real_table import Name, Table, label, percent

PLAIN_COLOUR, COMPENSATED_COLOUR, SINK_COLOUR = "#E4572E", "#1B998B", "#F3E3B8"
FIRST_TOKEN = "#8E4585"


def draw_rises(table: Table, path: Path) -> None:
    """Draw each choice's rise at each ratio, on a log scale, as it is and compensated."""
    names = [name for name in table.names if any(table.cell(name, r) for r in table.ratios)]
    with drawn(path, 11.0, 1.5 + 0.3 * len(names)) as canvas:
        columns = canvas.subplots(1, max(len(table.ratios), 1), sharey=True, squeeze=False)[0]
        for axes, ratio in zip(columns, table.ratios, strict=False):
            for row, name in enumerate(names):
                _draw_choice(axes, table, name, ratio, row)
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis, (1.0, 2.0, 5.0))
            axes.set_title(f"{percent(ratio)} of the layers")
            axes.grid(visible=False, axis="y")
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_yticks(range(len(names)), [label(name) for name in names])
            axes.tick_params(axis="y", length=0, labelcolor=INK)
        canvas.supxlabel("rise of the held-out loss (nats per token, log scale)", fontsize=10)
        canvas.legend(
            handles=[
                _mark("o", PLAIN_COLOUR, "as pruned"),
                _mark("D", COMPENSATED_COLOUR, "compensated"),
                _mark("|", MUTED, "a random draw"),
            ],
            loc="outside upper left",
            ncols=3,
        )


def _plain_ticks(axis: Any, steps: tuple[float, ...]) -> None:
    """Label a log axis by plain numbers, at these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _mark(marker: str, colour: str, text: str) -> Line2D:
    return Line2D([], [], marker=marker, color=colour, linestyle="", label=text)


def _draw_choice(axes: Axes, table: Table, name: Name, ratio: float, row: int) -> None:
    axes.axhline(row, color=HAIRLINE, linewidth=0.6, zorder=0)
    kinds = ((PLAIN, PLAIN_COLOUR, "o"), (table.default, COMPENSATED_COLOUR, "D"))
    for weights, colour, marker in kinds:
        cell = table.cell(name, ratio, weights)
        if cell is None or cell.rise <= 0:
            continue
        if len(cell.rows) > 1 and weights == PLAIN:
            draws = [r.rise for r in cell.rows if r.rise and r.rise > 0]
            axes.plot(draws, [row] * len(draws), "|", color=MUTED, markersize=8, zorder=1)
        axes.errorbar(
            cell.rise, row, xerr=min(cell.error, 0.9 * cell.rise), fmt=marker, color=colour,
            elinewidth=1.4, markersize=5.5 if marker == "o" else 4.5, zorder=3,
        )  # fmt: skip


def draw_dropped(table: Table, layers: Sequence[Layer], path: Path) -> None:
    """Draw the dropped layers of each choice at 25% and at 40%, sink layers marked."""
    ratios = [ratio for ratio in table.ratios if ratio != min(table.ratios, default=0)]
    names = [name for name in table.names if any(table.drops(name, ratio) for ratio in ratios)]
    sinks = [layer.layer for layer in layers if layer.is_sink]
    depth = max((i for row in table.rows for i in row.dropped), default=0) + 1
    depth = max(depth, len(layers))
    with drawn(path, 11.0, 1.2 + 0.26 * len(names)) as canvas:
        columns = canvas.subplots(1, max(len(ratios), 1), sharey=True, squeeze=False)[0]
        for axes, ratio in zip(columns, ratios, strict=False):
            for layer in sinks:
                axes.add_patch(Rectangle((layer - 0.5, -0.5), 1, len(names), color=SINK_COLOUR))
            for row, name in enumerate(names):
                for layer in table.drops(name, ratio):
                    axes.add_patch(Rectangle((layer - 0.42, row - 0.36), 0.84, 0.72, color=INK))
            axes.set_xlim(-0.6, depth - 0.4)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xticks(range(0, depth, 5))
            axes.set_xlabel("layer")
            axes.set_title(f"{percent(ratio)} of the layers")
            axes.set_yticks(range(len(names)), [label(name) for name in names])
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.grid(visible=False)
        handles = [Rectangle((0, 0), 1, 1, color=INK, label="dropped")]
        handles.append(Rectangle((0, 0), 1, 1, color=SINK_COLOUR, label="makes or ends a sink"))
        canvas.legend(handles=handles, loc="outside upper left", ncols=2)


def draw_layers(layers: Sequence[Layer], path: Path) -> None:
    """Draw over depth the loss without each layer, and how far it turns the states."""
    depth = [layer.layer for layer in layers]
    with drawn(path, 8.0, 5.2) as canvas:
        upper, lower = canvas.subplots(2, 1, sharex=True)
        for axes in (upper, lower):
            for layer in layers:
                if layer.is_sink:
                    axes.axvspan(layer.layer - 0.5, layer.layer + 0.5, color=SINK_COLOUR, zorder=0)
        upper.bar(depth, [layer.loss for layer in layers], color=PLAIN_COLOUR, width=0.7)
        lowest = min(layer.loss for layer in layers)
        upper.set_ylim(bottom=0.95 * lowest)
        upper.set_ylabel("nats per token")
        upper.set_title("Loss on calibration answers without each layer")
        for values, colour, text in (
            ([1 - layer.cosine for layer in layers], SPAN_COLOURS[1], "mean over tokens"),
            ([1 - layer.first_cosine for layer in layers], FIRST_TOKEN, "first token"),
        ):
            floored = [max(value, 1e-6) for value in values]
            lower.plot(depth, floored, marker="o", markersize=4, color=colour, label=text)
        lower.set_yscale("log")
        _plain_ticks(lower.yaxis, (1.0,))
        lower.set_ylabel("1 - cosine")
        lower.set_title("How far it turns the states (bands: sinks)")
        lower.set_xlabel("layer")
        lower.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
