"""Layers removed by each method at each ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.scores.table import Scores, read_scores
from interlace.selection.rounds import Table
from interlace.selection.select import select

RATIOS = (0.1, 0.25, 0.4)


@dataclass(frozen=True)
class Removal:
    """What one method makes of one ratio.

    Attributes:
        method: its name.
        ratio: as asked for.
        plan: the decision; none where it cannot be made.
        reason: why it cannot.
    """

    method: str
    ratio: float
    plan: Plan | None
    reason: str = ""


def removals(
    scores: Table | Scores, ratios: Sequence[float] = RATIOS, **asked: Any
) -> list[Removal]:
    """Ask every method that drops layers by a rule, in the order of `METHODS`, at every ratio.

    Args:
        scores: the score table.
        ratios: shares of the layers, each as the method's paper counts them.
        asked: what else `select` takes, e.g. alpha, seed or protect_first.

    Raises:
        InputError: the table cannot be read, or a ratio is none.
    """
    if strange := [ratio for ratio in ratios if not 0 < ratio < 1]:
        raise InputError(f"ratio = {strange[0]}: must be greater than 0 and less than 1")
    table = scores if isinstance(scores, Scores) else read_scores(scores)
    names = [name for name, rule in METHODS.items() if rule.removes and name != "manual"]
    return [_removal(table, name, ratio, asked) for name in names for ratio in ratios]


def _removal(table: Scores, method: str, ratio: float, asked: dict[str, Any]) -> Removal:
    if missing := [name for name in METHODS[method].needs if name not in table.criteria]:
        return Removal(method, ratio, None, f"not measured: {', '.join(missing)}")
    try:
        return Removal(method, ratio, select(table, method=method, ratio=ratio, **asked))
    except InputError as error:
        return Removal(method, ratio, None, str(error).split(";")[0])
