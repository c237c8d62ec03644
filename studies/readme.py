"""The results on real weights in the README, computed from the rows of both studies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from studies.real_healing_rows import Row as HealedRow
from studies.real_healing_runs import PRUNED, RECIPE, RECIPE_OWN
from studies.real_healing_table import HealedTable
from studies.real_rows import Row, read_rows
from studies.real_rules import RULES
from studies.real_table import Name, Table

RATIO = 0.25
COLUMNS = {
    "pruned": (PRUNED, False),
    "healed on labels": (RECIPE, False),
    "on own answers": (RECIPE_OWN, False),
    "compensated, then on own answers": (RECIPE_OWN, True),
}
CHOICES: dict[str, Name] = {  # before healing
    "`interlace` as published": ("interlace", "none"),
    "with sinks protected": ("interlace", "auto"),
    "`search`": ("search", "none"),
}
_BLOCK = re.compile(r"(?<=<!-- results: begin -->\n).*(?=<!-- results: end -->)", re.DOTALL)


def refresh_readme(docs: Path) -> None:
    """Renew the results in the README beside the folder of pages.

    Nothing is written where the README has no such block, or one of the studies has no rows yet.

    Args:
        docs: holds study-real.csv and study-real-healing.csv.
    """
    readme = docs.parent / "README.md"
    rows, healed = docs / "study-real.csv", docs / "study-real-healing.csv"
    if not (readme.exists() and rows.exists() and healed.exists()):
        return
    block = results(read_rows(rows), HealedTable(read_rows(healed, HealedRow)))
    text = _BLOCK.sub(lambda _: block, readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


def results(rows: Sequence[Row], healed: HealedTable) -> str:
    """Tabulate what healing leaves at a quarter of the layers, and say what pruning costs before.

    Args:
        rows: of the study of methods.
        healed: models of the study of healing.
    """
    lines = [f"| layers chosen by | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    for cell in healed.cells:
        values = [healed.value(cell, start) for start in COLUMNS.values()]
        if cell[1] == RATIO and all(values):
            numbers = (f"{v.mean:.2f} ± {v.error:.2f}" if v else "-" for v in values)
            lines.append(f"| `{cell[0]}` | {' | '.join(numbers)} |")
    table = Table(rows, RULES[0])
    losses = []
    for words, name in CHOICES.items():
        cell, after = (table.cell(name, RATIO, w) for w in ("plain", table.default))
        if cell and after:
            losses.append(f"{words} {cell.rise:.2f} → {after.rise:.2f}")
    head = "Judged by held-out text, before healing and → after compensation"
    lines += ["", f"{head}: {', '.join(losses)}."]
    return "\n".join(lines) + "\n"
