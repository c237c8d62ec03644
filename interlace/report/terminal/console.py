"""The terminal that results are printed to, and tables of plain text for it.

Names and answers are data: no markup is read in them, and no control character of theirs is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from interlace.printable import printable

NARROWEST = 20  # columns; a terminal that claims fewer breaks the lines itself


def print_blocks(*blocks: RenderableType) -> None:
    """Print blocks below each other."""
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(console.width, NARROWEST)
    console.print(*map(_Printable, blocks), sep="\n")


def plain_text(text: str, style: str = "") -> Text:
    """Return text in which nothing is markup or a control character."""
    return Text(printable(text), style=style)


class PlainTable(Table):
    """A table whose headings and cells are plain text."""

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """Add a column."""
        super().add_column(_plain_cell(header), _plain_cell(footer), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row."""
        super().add_row(*map(_plain_cell, cells), **options)


def _plain_cell(cell: Any) -> Any:
    return plain_text(cell) if isinstance(cell, str) else cell


@dataclass(frozen=True)
class _Printable:
    """A block without control characters, whatever it was built of."""

    block: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        block = plain_text(self.block) if isinstance(self.block, str) else self.block
        for segment in console.render(block, options):
            text = segment.text if segment.control else printable(segment.text)
            yield Segment(text, segment.style, segment.control)
