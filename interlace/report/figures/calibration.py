"""Agreement with the full calibration set by its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from interlace.report.facts.calibration import ENOUGH
from interlace.report.figures.profile import SPAN_LABELS
from interlace.report.figures.style import INK, SPAN_COLOURS, drawn, with_formulas


def calibration_size_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw Kendall's tau of `S_1` and `S_3`, and how often the same layers go, by size.

    The title is the answer: the smallest part that ranks triplets as the whole does, if any.

    Args:
        rows: of `calibration.SIZES`; columns without values are left out.
        path: where to write, .png, .svg or .pdf.
    """
    if not rows:
        with drawn(path, 7, 1) as figure:
            figure.text(0.02, 0.5, "Too few samples to compare sizes.", va="center")
        return
    with drawn(path, 8.0, 4.6) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1])
        for span in (1, 3):
            _tau_line(top, rows, span)
        top.set_ylabel("Kendall's tau with\nthe full set")
        top.set_ylim(top=1)
        if top.get_legend_handles_labels()[0]:
            legend = top.legend(
                loc="lower right", ncols=2, handlelength=1.4, title="mean; band: 5% to 95% of draws"
            )
            with_formulas(legend)
        top.set_title(answer(rows))
        _same_line(bottom, rows)
        ticks = [f"{100 * row['share']:.2g}%\n{row['samples']:,}" for row in rows]
        bottom.set_xscale("log")
        bottom.set_xticks([row["samples"] for row in rows], ticks)
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.set_xlabel("share of the calibration set, and samples")


def answer(rows: list[dict[str, Any]]) -> str:
    """Say the smallest share that ranks triplets as the full set does, and what it drops."""
    ranked = [row for row in rows if row["tau_3"] is not None]
    if not ranked:
        return "Triplets could not be ranked"
    row = next((row for row in ranked if row["tau_3"] >= ENOUGH), None)
    share = f"{100 * (row or ranked[-1])['share']:.2g}% of the calibration set"
    if row is None:
        return f"Even {share} ranks triplets differently (tau {ranked[-1]['tau_3']:.2f})"
    text = f"{share} gives the same ranking of triplets (tau {row['tau_3']:.2f})"
    if row["same"] is None:
        return text
    return f"{text},\nand drops the same layers in {100 * row['same']:.0f}% of draws"


def _tau_line(axes: Axes, rows: list[dict[str, Any]], span: int) -> None:
    ranked = [row for row in rows if row[f"tau_{span}"] is not None]
    if not ranked:
        return
    samples, colour = [row["samples"] for row in ranked], SPAN_COLOURS[span]
    low, middle, high = (
        [row[f"tau_{span}{end}"] for row in ranked] for end in ("_low", "", "_high")
    )
    axes.fill_between(samples, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        samples, middle, color=colour, marker="o", markersize=3.6, clip_on=False,
        label=SPAN_LABELS[span],
    )  # fmt: skip


def _same_line(axes: Axes, rows: list[dict[str, Any]]) -> None:
    ranked = [row for row in rows if row["same"] is not None]
    if ranked:
        samples, same = ([row[name] for row in ranked] for name in ("samples", "same"))
        axes.plot(samples, same, color=INK, marker="o", markersize=3.6, clip_on=False)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("share of draws")
    title = "draws in which INTERLACE at 25% drops the same layers"
    axes.set_title(title, fontsize=9.5, fontweight="normal", pad=5)
