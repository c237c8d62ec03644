"""The figure of the study of healing on real weights."""

from __future__ import annotations

from pathlib import Path

from interlace.report.figures.style import LINE_COLOURS, MUTED, drawn
from studies.real_healing_runs import PRUNED
from studies.real_healing_table import HealedTable, plan_named


def draw_rises(table: HealedTable, path: Path) -> None:
    """Draw the rise of each plan on own answers, before and after healing in each way."""
    if not table.cells:
        return
    ways = list(dict.fromkeys(way for way, _ in table.starts))
    colours = dict(zip(ways, (MUTED, *LINE_COLOURS), strict=False))
    with drawn(path, 9.0, 1.2 + 0.75 * len(table.cells)) as canvas:
        axes = canvas.add_subplot()
        for row, cell in enumerate(table.cells):
            for way, compensated in table.starts:
                if value := table.value(cell, (way, compensated)):
                    axes.errorbar(
                        max(value.mean, 1e-3),
                        row + (ways.index(way) / len(ways) - 0.4) * 0.8,
                        xerr=value.error,
                        fmt="o" if not compensated else "D",
                        mfc=colours[way] if not compensated else "white",
                        color=colours[way],
                        label=None if compensated or row else way,
                    )
        axes.set_xscale("log")
        axes.set_xlabel("rise on the dense model's own answers (nats per token, log scale)")
        axes.set_yticks(
            range(len(table.cells)), [plan_named(c).replace("`", "") for c in table.cells]
        )
        axes.set_ylim(len(table.cells) - 0.5, -0.5)
        axes.set_title("filled: from plain weights, hollow: from compensated ones", fontsize=9)
        axes.legend(title=f"{PRUNED} or healed", fontsize=8)
