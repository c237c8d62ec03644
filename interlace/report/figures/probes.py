"""Similarity of each layer's input and output on the probes of each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from interlace.report.facts.scale import nines
from interlace.report.figures.style import NINES, SEQUENTIAL, drawn, label

DOMAINS = {"math": "math", "nonmath": "non-math"}  # in the order of the panels
COLOURS = LinearSegmentedColormap.from_list("redundancy", SEQUENTIAL)


def probe_heatmap(table: pa.Table, path: Path) -> None:
    """Draw tasks by layers: the darker, the less the layer changes that task's probes.

    The colours are on the scale of nines. Without probes the figure says so.

    Args:
        table: of `PROBE_SCHEMA`.
        path: where to write, .png, .svg or .pdf.
    """
    if not len(table):
        with drawn(path, 7, 1) as figure:
            figure.text(0.02, 0.5, "No probes: probes.per_task is 0.", va="center")
        return
    depth = 1 + pc.max(table["layer"]).as_py()
    grids = {name: _grid(table.filter(pc.field("domain") == name), depth) for name in DOMAINS}
    grids = {name: grid for name, grid in grids.items() if grid[0]}
    heights = [len(tasks) for tasks, _ in grids.values()]
    values = nines(table["similarity"].to_numpy())
    limits = (float(values.min()), max(float(values.max()), float(values.min()) + 1e-3))
    width = float(np.clip(3.0 + 0.19 * depth, 7, 13))
    with drawn(path, width, 1.2 + 0.3 * sum(heights)) as figure:
        panels = figure.subplots(
            len(grids), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for axes, (name, (tasks, values)) in zip(panels, grids.items(), strict=True):
            _panel(axes, tasks, values, limits)
            axes.set_ylabel(DOMAINS[name], fontweight="bold")
        panels[0].set_title("How little each layer changes each task's probes")
        panels[-1].set_xlabel("layer (0-based)")
        figure.align_ylabels(panels)
        _colour_bar(figure, panels, limits)


def _grid(table: pa.Table, depth: int) -> tuple[list[str], NDArray[np.float64]]:
    """Return the tasks of one domain and their similarities, [tasks, layers]; NaN: not measured."""
    tasks = list(dict.fromkeys(table["task"].to_pylist()))
    values = np.full((len(tasks), depth), np.nan)
    for row in table.to_pylist():
        values[tasks.index(row["task"]), row["layer"]] = row["similarity"]
    return tasks, values


def _panel(
    axes: Axes, tasks: list[str], values: NDArray[np.float64], limits: tuple[float, float]
) -> None:
    rows, depth = values.shape
    axes.pcolormesh(
        np.arange(depth + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(nines(values)),
        cmap=COLOURS, vmin=limits[0], vmax=limits[1], edgecolors="white", linewidth=0.8,
    )  # fmt: skip
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(range(rows), [label(task) for task in tasks])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _colour_bar(figure: Figure, panels: NDArray[Any], limits: tuple[float, float]) -> None:
    """Draw the colour bar; its ticks are cosines on the scale of nines."""
    bar = figure.colorbar(panels[0].collections[0], ax=list(panels), pad=0.02, aspect=18)
    ticks = [tick for tick in NINES if limits[0] <= nines(np.array(tick)) <= limits[1]]
    bar.set_ticks(
        [float(nines(np.array(tick))) for tick in ticks], labels=[f"{t:g}" for t in ticks]
    )
    bar.set_label("mean cosine of input and output\n(scale of nines)")
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
