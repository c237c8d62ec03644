"""Redundancy of layers and triplets over depth, in several models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from interlace.errors import InputError
from interlace.report.facts.scale import nines
from interlace.report.figures.style import LINE_COLOURS, drawn, label, scale_in_nines
from interlace.scores.table import NATIVE, read_scores

PANELS = {1: "$S_1$: one layer", 3: "$S_3$: a triplet of layers"}
MARKERS = "os^DvPX*"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
LEGEND_LETTERS = 110  # that fit side by side under the panels
MOST = len(LINE_COLOURS) * len(DASHES)  # lines that can be told apart


def similarity_figure(tables: Mapping[str, pa.Table | Path | str], path: Path) -> None:
    """Draw `S_1` of layers and `S_3` of triplets over depth, one line per model.

    Models of one depth share an axis of layers. Of different depths, each value stands at the
    middle of its span, as a share of its model's layers.

    Args:
        tables: by the model's name: its score table, or its Parquet file.
        path: where to write, .png, .svg or .pdf.

    Raises:
        InputError: no table, more than lines can be told apart, or one without `cosine` of one
            layer.
    """
    if not 1 <= len(tables) <= MOST:
        raise InputError(f"{len(tables)} score tables: between 1 and {MOST} models can be drawn")
    profiles = {name: _profiles(name, table) for name, table in tables.items()}
    relative = len({depth for depth, _ in profiles.values()}) > 1
    names = [label(name) for name in tables]
    columns = min(len(tables), max(1, LEGEND_LETTERS // (max(map(len, names)) + 8)))
    rows = -(-len(tables) // columns)
    with drawn(path, 9.2, 3.7 + 0.22 * rows) as figure:
        both = figure.subplots(1, 2, sharey=True)
        for axes, (span, title) in zip(both, PANELS.items(), strict=True):
            for index, (depth, values) in enumerate(profiles.values()):
                _line(axes, values.get(span, {}), index, span, depth if relative else None)
            axes.set_title(title, parse_math=True)
            axes.set_xlabel("depth of the span's middle" if relative else "first layer (0-based)")
            if relative:
                axes.set_xlim(0, 1)
                axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        cosines = [
            v for _, spans in profiles.values() for by in spans.values() for v in by.values()
        ]
        scale_in_nines(both[0], min(cosines), max(cosines))
        both[0].set_ylabel("cosine of input and output")
        figure.legend(
            both[0].get_lines(), names, loc="outside lower center", ncols=columns, handlelength=2.4,
        )  # fmt: skip


def _profiles(name: str, table: pa.Table | Path | str) -> tuple[int, dict[int, dict[int, float]]]:
    """Return a model's depth, and its `cosine` of spans 1 and 3 by first layer.

    Raises:
        InputError: the table holds none of one layer.
    """
    scores = read_scores(table)
    try:
        layer = scores.of_span(1)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    spans = {span for criterion, _, span in scores.values if criterion == NATIVE}
    return scores.n_layers, {1: layer} | ({3: scores.of_span(3)} if 3 in spans else {})


def positions(first: Iterable[int], span: int, depth: int | None) -> NDArray[np.float64]:
    """Place spans on the axis: by their first layer, or by their middle as a share of the depth.

    Args:
        first: first layers.
        span: layers per span.
        depth: layers of the model; None: the axis counts layers.
    """
    layers = np.array(list(first), dtype=np.float64)
    return layers if depth is None else (layers + span / 2) / depth


def _line(
    axes: Axes, values: Mapping[int, float], index: int, span: int, depth: int | None
) -> None:
    axes.plot(
        positions(values, span, depth),
        nines(np.array(list(values.values()))),
        color=LINE_COLOURS[index % len(LINE_COLOURS)],
        linestyle=DASHES[index // len(LINE_COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=3.4,
        linewidth=1.4,
    )
