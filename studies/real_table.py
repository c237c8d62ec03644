"""Rows of the study on real weights by choice, for the tables and figures of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from studies.real_losses import mean_and_spread
from studies.real_rows import PLAIN, Row

Name = tuple[str, str]  # a method, and its protection


@dataclass(frozen=True)
class Cell:
    """A choice's rise of the loss at one ratio; the mean over draws where there are several.

    Attributes:
        rows: one, or one for each draw.
    """

    rows: tuple[Row, ...]

    @property
    def rise(self) -> float:
        """Return the rise, nats per token."""
        return fmean(_number(row.rise) for row in self.rows)

    @property
    def spread(self) -> float:
        """Return the standard deviation over draws; 0 for one."""
        return mean_and_spread([_number(row.rise) for row in self.rows])[1]

    @property
    def error(self) -> float:
        """Return the standard error of the rise: over tokens, and over draws."""
        tokens = fmean(_number(row.error) for row in self.rows)
        return sqrt(tokens**2 + self.spread**2 / len(self.rows))

    @property
    def text(self) -> str:
        """Return the rise and its error, or the spread over draws."""
        if len(self.rows) == 1:
            return f"{self.rise:.3f} ± {self.error:.3f}"
        lowest, *_, highest = sorted(_number(row.rise) for row in self.rows)
        return f"{self.rise:.2f} ± {self.spread:.2f} ({lowest:.2f} to {highest:.2f})"


def _number(value: float | None) -> float:
    assert value is not None
    return value


class Table:
    """The rows of a study, looked up by choice.

    Attributes:
        rows: all of them.
        default: the rule of compensation that `compensated` cells have.
    """

    def __init__(self, rows: Sequence[Row], default: str) -> None:
        self.rows, self.default = rows, default
        self.ratios = sorted({row.ratio for row in rows if row.ratio})

    def cell(self, name: Name, ratio: float, weights: str = PLAIN) -> Cell | None:
        """Return a choice's cell; `None` where it was not scored."""
        key = (*name, ratio, weights)
        rows = [row for row in self.rows if _key(row) == key and row.rise is not None]
        return Cell(tuple(rows)) if rows else None

    def drops(self, name: Name, ratio: float) -> tuple[int, ...]:
        """Return the layers that a choice drops; none where it draws, or there is no choice."""
        rows = [row for row in self.rows if _key(row) == (*name, ratio, PLAIN)]
        return rows[0].dropped if len(rows) == 1 else ()

    @property
    def names(self) -> list[Name]:
        """Return all choices, best at 25% first; protected ones where protection changes them."""
        listed = dict.fromkeys((row.method, row.protect) for row in self.rows if row.ratio)
        names = [name for name in listed if name[1] == "none" or self._differs(name)]
        return sorted(names, key=self._order)

    def _differs(self, name: Name) -> bool:
        if not any(self.cell(name, ratio) for ratio in self.ratios):
            return False
        other = (name[0], "none")
        drawn = len({row.seed for row in self.rows if row.method == name[0]}) > 1
        return drawn or any(self.drops(name, r) != self.drops(other, r) for r in self.ratios)

    def _order(self, name: Name) -> tuple[float, str, str]:
        cells = (self.cell(name, ratio) for ratio in (0.25, 0.1, 0.4))
        return next((cell.rise for cell in cells if cell), 1e9), *name

    def best(
        self, ratio: float, weights: str = PLAIN, *, without: Sequence[str] = ()
    ) -> tuple[Name, Cell] | None:
        """Return the choice of smallest rise at a ratio, but for some methods."""
        cells = [
            (name, cell)
            for name in self.names
            if name[0] not in (*without, "random") and (cell := self.cell(name, ratio, weights))
        ]
        return min(cells, key=lambda pair: pair[1].rise) if cells else None


def _key(row: Row) -> tuple[str, str, float, str]:
    return row.method, row.protect, row.ratio, row.weights


def label(name: Name) -> str:
    """Return a choice's name for readers."""
    method, protect = name
    return method if protect == "none" else f"{method} (protected)"


def shown(cell: Cell | None) -> str:
    """Return a cell for readers; a dash where there is none."""
    return cell.text if cell else "-"


def percent(ratio: float) -> str:
    """Return a ratio for readers."""
    return f"{100 * ratio:g}%"
