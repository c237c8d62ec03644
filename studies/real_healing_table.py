"""Rows of the study of healing on real weights by plan and way, for its page and its figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from studies.real_healing_rows import Row
from studies.real_healing_runs import PRUNED, WAYS, Cell
from studies.real_losses import mean_and_spread
from studies.real_table import percent

Start = tuple[str, bool]  # a way, and whether it starts from compensated weights


@dataclass(frozen=True)
class Value:
    """A mean over seeds, and its standard error: over rows, and over seeds."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"

    @property
    def percent(self) -> str:
        """Return a share as percent."""
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f}"


class HealedTable:
    """The judged models of a study, looked up by plan and way.

    Attributes:
        rows: all of them, those of searches for a learning rate too.
        cells: plans with a judged model, in order.
        starts: ways with a judged model, plain before compensated.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        judged = [row for row in rows if row.own is not None]
        self.cells: list[Cell] = list(dict.fromkeys((row.method, row.ratio) for row in judged))
        self.starts: list[Start] = [
            (way, weights)
            for weights in (False, True)
            for way in (PRUNED, *WAYS)
            if any((r.way, r.compensated) == (way, weights) for r in judged)
        ]

    def of(self, cell: Cell, start: Start) -> list[Row]:
        """Return the judged models of a plan and a way, one for each seed."""
        return [
            row
            for row in self.rows
            if (row.method, row.ratio) == cell
            and (row.way, row.compensated) == start
            and row.own is not None
        ]

    def value(self, cell: Cell, start: Start, number: str = "own") -> Value | None:
        """Return the mean of a number over seeds; `None` where no model has it."""
        rows = [row for row in self.of(cell, start) if getattr(row, number) is not None]
        if not rows:
            return None
        values = [getattr(row, number) for row in rows]
        errors = [getattr(row, f"{number}_error") for row in rows]
        mean, spread = mean_and_spread(values)
        return Value(mean, sqrt(fmean(errors) ** 2 + spread**2 / len(values)))

    def best(self, cell: Cell, *, by_labels: bool = True) -> tuple[Start, Value] | None:
        """Return the way of least rise on own answers.

        Args:
            cell: the plan.
            by_labels: False to leave out ways that train on labels.
        """
        values = [
            (start, value)
            for start in self.starts
            if start[0] != PRUNED
            and (by_labels or WAYS[start[0]].answers != "labels")
            and (value := self.value(cell, start))
        ]
        return min(values, key=lambda pair: pair[1].mean) if values else None

    def searches(self) -> Iterator[tuple[Cell, Start, dict[float, float]]]:
        """Yield each search for a learning rate: the loss on validation rows by rate."""
        for cell in self.cells:
            for weights in (False, True):
                for way in WAYS:
                    losses = {
                        row.rate: row.validation
                        for row in self.rows
                        if (row.method, row.ratio, row.seed) == (*cell, 0)
                        and (row.way, row.compensated) == (way, weights)
                        and row.validation is not None
                    }
                    if losses:
                        yield cell, (way, weights), losses


def named(start: Start) -> str:
    """Return a way's name for readers."""
    way, compensated = start
    if way == PRUNED:
        return "compensated" if compensated else PRUNED
    return f"compensated, then {way}" if compensated else way


def plan_named(cell: Cell) -> str:
    """Return a plan's name for readers."""
    return f"`{cell[0]}`, {percent(cell[1])}"
