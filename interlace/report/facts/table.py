"""A table of text, as the page and the cards show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text, whose first column names the rows."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
