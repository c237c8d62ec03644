"""Answers that changed between models, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.text import Text

from interlace.printable import printable
from interlace.report.facts.changes import (
    EXPLAINED,
    Answers,
    Change,
    changes,
    compared,
    difference_cells,
    difference_headings,
    examples,
    retained_text,
)
from interlace.report.terminal.console import PlainTable, plain_text


def changes_text(answers: Answers, limit: int) -> RenderableType:
    """Return the differences between models, and some changed answers.

    Args:
        answers: by model.
        limit: changed answers to print of each kind and benchmark.
    """
    blocks: list[RenderableType] = []
    for (first, second), rows in compared(answers).items():
        table = PlainTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for heading in difference_headings(first, second):
            table.add_column(heading, justify="left" if heading == "benchmark" else "right")
        for difference in rows[:-1]:
            table.add_row(*difference_cells(difference))
        table.add_section()
        table.add_row(*difference_cells(rows[-1]), style="bold")
        blocks += [table, plain_text(retained_text(first, second, rows[-1])), ""]
    blocks.append(Text(EXPLAINED, style="dim"))
    for change in examples(changes(answers), limit):
        blocks += ["", _change_text(change, list(answers))]
    return Group(*blocks)


def _change_text(change: Change, models: Sequence[str]) -> Text:
    row = change.first
    text = plain_text(f"{change.kind}: {row.benchmark} {row.sample_id}\n", "bold")
    text.append(f"{printable(change.prompt)}\n", style="not bold")
    width = max(map(len, [*models, "true"]))
    for name, answer, score in change.lines:
        mark = "" if score is None else f"  ({score:g})"
        text.append(printable(f"  {name.ljust(width)}  {answer}{mark}\n"), style="not bold")
    text.rstrip()
    return text
