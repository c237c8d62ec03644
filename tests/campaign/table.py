"""The campaign's table, from the rows of its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from campaign.outcomes import FAULTS, MISSED, OUTCOMES


class Row(TypedDict):
    """The result of one try, a line of the results' file."""

    name: str
    kind: str
    target: str
    detail: str
    outcome: str
    reason: str
    vague: bool
    seconds: float


HEADS = ("kind", "tried", "same bytes after", *OUTCOMES[1:])


def lines(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown: a line for each kind, and the sum."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    counts = {
        kind: Counter(row["outcome"] for row in rows if row["kind"] == kind) for kind in kinds
    }
    counts["all"] = Counter(row["outcome"] for row in rows)
    body = [
        [kind, str(count.total()), *(str(count[outcome]) for outcome in OUTCOMES)]
        for kind, count in counts.items()
    ]
    rule = ["---", *["---:"] * (len(HEADS) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (HEADS, rule, *body)]


def faults(rows: Sequence[Row]) -> list[Row]:
    """The tries that found a fault."""
    return [row for row in rows if row["outcome"] in FAULTS]


PAGE = Path(__file__).with_name("page.md")


def page(rows: Sequence[Row], seed: int, *, complete: bool) -> str:
    """The page of a campaign, docs/reliability.md."""
    clear = [row for row in rows if row["outcome"] == "clear line"]
    late = [row for row in clear if not row["reason"].startswith("stages.pin")]
    scope = (
        f"All {len(rows)} tries of seed {seed}:"
        if complete
        else (f"{len(rows)} tries of seed {seed}, a part of them:")
    )
    inputs = [row for row in late if row["kind"] not in ("disk full", "two at once", "artifacts")]
    return PAGE.read_text().format(
        scope=scope,
        table="\n".join(lines(rows)),
        late=len(inputs),
        vague=sum(row["vague"] for row in clear),
        missed=sum(row["reason"] == MISSED for row in rows),
        seed=seed,
    )
