"""The table of candidates: plans that were healed and compared, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from interlace.plan.record import Plan, Record
from interlace.scores.rate import rate
from interlace.scores.table import read_csv
from interlace.system.documents import read_record
from interlace.system.outputs import whole, write_json

LOSSES, CHOSEN = "losses.csv", "plan.json"  # in the folder of candidates
CANDIDATES = pa.schema(
    [
        ("plan", pa.int32()),  # from 1, in the order of the methods' criteria
        ("method", pa.string()),
        ("drop", pa.string()),  # layers
        ("tune", pa.string()),
        ("loss_before", pa.float64()),  # nats per answer token, before healing
        ("loss_after", pa.float64()),
        ("error", pa.float64()),  # of the difference from the chosen plan's, paired by row
        ("chosen", pa.bool_()),
    ]
)


class Losses(Record):
    """The losses of one plan on each row that judges.

    Attributes:
        tokens: answer tokens of each row.
        before: sum of their cross-entropies in nats, of the plan before healing.
        after: the same after healing.
    """

    tokens: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def candidate_table(plans: Sequence[Plan], losses: Sequence[Losses]) -> pa.Table:
    """Return a table of `CANDIDATES`; of equal losses after healing, the first is chosen."""
    after = [rate(loss.after, loss.tokens).value for loss in losses]
    best = after.index(min(after))
    rows = []
    for number, (plan, loss) in enumerate(zip(plans, losses, strict=True)):
        differences = [a - b for a, b in zip(loss.after, losses[best].after, strict=True)]
        rows.append(
            {
                "plan": number + 1,
                "method": plan.method,
                "drop": " ".join(map(str, plan.drop)),
                "tune": " ".join(map(str, plan.tune)),
                "loss_before": rate(loss.before, loss.tokens).value,
                "loss_after": after[number],
                "error": rate(differences, loss.tokens).standard_error,
                "chosen": number == best,
            }
        )
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def write_candidates(folder: Path, plans: Sequence[Plan], losses: Sequence[Losses]) -> pa.Table:
    """Write the table and the chosen plan; without plans, an empty table and none.

    Returns:
        The table.
    """
    table = candidate_table(plans, losses) if plans else CANDIDATES.empty_table()
    best = [
        plan.model_copy(update={"candidates": len(plans)})
        for plan, is_chosen in zip(plans, table["chosen"].to_pylist(), strict=True)
        if is_chosen
    ]
    with whole(folder) as partial:
        partial.mkdir()
        csv.write_csv(table, partial / LOSSES)
        write_json(partial / CHOSEN, best[0].model_dump(mode="json") if best else None)
    return table


def choice_line(table: pa.Table) -> str:
    """Say in one line which plan of a table of `CANDIDATES` was chosen."""
    (best,) = (row for row in table.to_pylist() if row["chosen"])
    return (
        f"plan {best['plan']} of {len(table)} is chosen, {best['method']} without layers"
        f" {best['drop']}: loss {best['loss_before']:.3f} before and {best['loss_after']:.3f} after"
        " healing"
    )


def read_candidates(folder: Path) -> pa.Table:
    """Read the table of candidates.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_csv(folder / LOSSES, CANDIDATES)


def read_chosen(folder: Path) -> Plan | None:
    """Read the plan that was chosen among candidates; `None` where none were healed.

    Raises:
        InputError: the file is missing, or holds something else than a plan.
    """
    plan: Plan | None = read_record(folder / CHOSEN, Plan | None)
    return plan
