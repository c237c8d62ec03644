"""Layers removed by each method at each ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.removals import PaperRule, Removal
from interlace.scores.table import Scores, read_scores
from interlace.selection.rounds import Table
from interlace.selection.select import select

RATIOS = (0.1, 0.25, 0.4)


def paper_rule(method: str) -> PaperRule:
    """Return a method's own rules; of an unknown method, none."""
    rule = METHODS.get(method)
    if rule is None:
        return PaperRule()
    return PaperRule(
        needs=rule.needs, protect_first=rule.protect_first, protect_last=rule.protect_last
    )


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
    about: dict[str, Any] = {"method": method, "ratio": ratio, "n_layers": table.n_layers}
    if missing := [name for name in METHODS[method].needs if name not in table.criteria]:
        return Removal(**about, reason=f"not measured: {', '.join(missing)}")
    try:
        plan = select(table, method=method, ratio=ratio, **asked)
    except InputError as error:
        return Removal(**about, reason=str(error).split(";")[0])
    return Removal(
        **about,
        drop=tuple(plan.drop),
        tune=tuple(plan.tune),
        anchors=tuple(group.anchor for group in plan.groups if group.anchor is not None),
        protected=tuple(plan.protected),
    )
