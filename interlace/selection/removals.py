"""Layers removed by each method at each ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.plan.removals import PaperRule, Removal
from interlace.scores.table import HOW_TO_MEASURE, Scores, ScoreTable, read_scores
from interlace.selection.select import resolve_ratio, select_layers

RATIOS = (0.1, 0.25, 0.4)


def paper_rule(method: str) -> PaperRule:
    """Return a method's own rules; of an unknown method, none."""
    rule = METHODS.get(method)
    if rule is None:
        return PaperRule()
    return PaperRule(needs=rule.needs)


def removals(
    scores: ScoreTable,
    ratios: Sequence[float] = RATIOS,
    options: Select | None = None,
    *,
    seed: int = 0,
) -> list[Removal]:
    """Choose by all methods that drop layers by a rule, in the order of `METHODS`, at all ratios.

    Args:
        scores: the score table.
        ratios: shares of the layers, each as the method's paper counts them.
        options: how layers are chosen; rounds and `tuned` do not count here.
        seed: of methods that draw.

    Raises:
        InputError: the table cannot be read, or a ratio lies outside (0, 1).
    """
    for ratio in ratios:
        resolve_ratio(ratio, None)
    table = read_scores(scores)
    options = (options or Select()).model_copy(update={"rounds": 1, "tuned": "planned"})
    names = [name for name, rule in METHODS.items() if rule.removes and name != "manual"]
    return [_removal(table, name, ratio, options, seed) for name in names for ratio in ratios]


def _removal(table: Scores, method: str, ratio: float, options: Select, seed: int) -> Removal:
    subject: dict[str, Any] = {"method": method, "ratio": ratio, "n_layers": table.n_layers}
    if missing := [name for name in METHODS[method].needs if name not in table.criteria]:
        ways = dict.fromkeys(HOW_TO_MEASURE.get(name, "") for name in missing)
        return Removal(**subject, reason="; ".join(["not measured", *filter(None, ways)]))
    try:
        plan = select_layers(table, method, ratio, options, seed=seed)
    except InputError as error:
        return Removal(**subject, reason=str(error).split(";")[0])
    return Removal(
        **subject,
        drop=tuple(plan.drop),
        tune=tuple(plan.tune),
        anchors=tuple(group.anchor for group in plan.groups if group.anchor is not None),
        protected=tuple(plan.protected),
    )
