"""The profile of scores over depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from interlace.errors import InputError
from interlace.report.facts.scale import nines
from interlace.report.figures.style import INK, SPAN_COLOURS, drawn, scale_in_nines, with_formulas
from interlace.scores.sinks import SinkLayers, sink_layers
from interlace.scores.table import NATIVE, read_scores

SPAN_LABELS = {1: "$S_1$ layer", 2: "$S_2$ pair", 3: "$S_3$ triplet"}
NORMAL_95 = 1.96  # standard errors each side of a 95% interval


def profile_figure(scores: pa.Table | Path | str, path: Path) -> None:
    """Draw `S_1`, `S_2` and `S_3` over depth, with 95% bands of the mean.

    Layers that make or end a massive activation are marked by triangles.

    Args:
        scores: the score table, or its Parquet file; criterion `cosine` is drawn.
        path: where to write, .png, .svg or .pdf.

    Raises:
        InputError: the table holds no `cosine`.
    """
    table = scores if isinstance(scores, pa.Table) else pq.read_table(scores)
    rows = [row for row in table.to_pylist() if row["criterion"] == NATIVE]
    if not rows:
        raise InputError(f"scores hold no criterion {NATIVE!r}; run `collect` and `score` again")
    with drawn(path, 8.0, 4.2) as figure:
        axes = figure.add_subplot()
        for span, label in SPAN_LABELS.items():
            span_rows = sorted(
                (r for r in rows if r["span"] == span), key=lambda r: int(r["first"])
            )
            if span_rows:
                _profile_line(axes, span_rows, SPAN_COLOURS[span], label)
        values = [row["value"] for row in rows if row["span"] in SPAN_LABELS]
        scale_in_nines(axes, min(values), max(values))
        _sink_marks(axes, sink_layers(read_scores(table)) or SinkLayers())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14))
        axes.set_xlabel("first layer of the span (0-based)")
        axes.set_ylabel("cosine of input and output")
        axes.set_title("How little each span of layers changes its input")
        with_formulas(axes.legend(loc="lower right", ncols=3, handlelength=1.4))


def _sink_marks(axes: Axes, sinks: SinkLayers) -> None:
    """Mark layers at the upper edge: they matter, however little a mean over tokens says so."""
    for layers, marker, label in (
        (sinks.start, "^", "makes a massive activation"),
        (sinks.end, "v", "ends one"),
    ):
        for layer in layers:
            axes.axvline(
                layer, 0.2, color=INK, linewidth=0.9, linestyle=":", zorder=1
            )  # above the legend
        if layers:
            heights = [0.97] * len(layers)
            marks = axes.plot(layers, heights, marker, color=INK, markersize=6, label=label)
            marks[0].set_transform(axes.get_xaxis_transform())


def _profile_line(axes: Axes, rows: list[dict[str, Any]], colour: str, label: str) -> None:
    first = [row["first"] for row in rows]
    value = np.array([row["value"] for row in rows], dtype=np.float64)  # [spans]
    error = NORMAL_95 * np.array([row.get("standard_error") or 0.0 for row in rows])
    axes.fill_between(
        first, nines(value - error), nines(value + error), color=colour, alpha=0.18, linewidth=0
    )
    axes.plot(first, nines(value), color=colour, marker="o", markersize=3.6, label=label)
