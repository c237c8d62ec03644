"""The plans that were healed and compared, as a table."""

from __future__ import annotations

import pyarrow as pa

from interlace.report.facts.decision import listed
from interlace.report.facts.table import Table

HEADINGS = ("plan", "method", "dropped", "before", "after", "over the chosen")
CAPTION = (
    "Plans healed for a few steps each: loss on training rows that no candidate was healed on, nats"
    " per token, before and after; the lowest after healing is chosen; \u00b1 one paired standard"
    " error"
)


def candidates_table(candidates: pa.Table) -> Table:
    """Show a table of `CANDIDATES`; without rows where no plans were compared."""
    rows = candidates.to_pylist()
    lowest = min((row["loss_after"] for row in rows), default=0.0)
    return Table(
        HEADINGS,
        [
            [
                str(row["plan"]),
                row["method"],
                listed([*map(int, row["drop"].split())], "\u2013"),
                f"{row['loss_before']:.3f}",
                f"{row['loss_after']:.3f}",
                "chosen"
                if row["chosen"]
                else _difference(row["loss_after"] - lowest, row["error"]),
            ]
            for row in rows
        ],
        CAPTION,
    )


def _difference(value: float, error: float | None) -> str:
    return f"{value:+z.3f}" + ("" if error is None else f" \u00b1 {error:.3f}")
