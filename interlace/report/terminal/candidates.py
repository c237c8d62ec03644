"""The plans that were healed and compared, in the terminal: the caller prints the table."""

from __future__ import annotations

import pyarrow as pa
from rich.box import SIMPLE_HEAD

from interlace.report.facts.candidates import candidates_table
from interlace.report.terminal.console import PlainTable, plain_text

WORDS = ("method", "dropped")  # columns of words; the others hold numbers


def candidates_text(candidates: pa.Table) -> PlainTable:
    """Show a table of `CANDIDATES` within 80 columns."""
    facts = candidates_table(candidates)
    table = PlainTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in facts.headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right")
    for row in facts.rows:
        table.add_row(*row, style="bold" if "chosen" in row else "")
    table.caption, table.caption_justify = plain_text(facts.caption), "left"
    return table
