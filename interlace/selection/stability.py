"""Stability of a choice under resampling of the calibration set; needs neither model nor torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from interlace.errors import InputError
from interlace.methods.registry import find_method
from interlace.plan.record import Plan, Stability
from interlace.scores.resample import replicate_tables
from interlace.scores.table import SINKS, Scores
from interlace.selection.rounds import Later


def plan_with_stability(
    choose: Callable[..., Plan], scores: Scores, replicates: pa.Table, later: Later = ()
) -> Plan:
    """Choose, and say how sure the choice is.

    Args:
        choose: `select_layers` with all arguments but the scores and `later`.
        scores: of the dense model.
        replicates: of `REPLICATES`.
        later: see `select`.

    Raises:
        InputError: see `select`.
    """
    plan = choose(scores, later=later)
    return plan.model_copy(update={"stability": stability(plan, scores, replicates, choose)})


def stability(
    plan: Plan, scores: Scores, replicates: pa.Table, choose: Callable[[Scores], Plan]
) -> Stability | None:
    """Count how many resampled calibration sets drop the same layers.

    A draw by which the layers cannot be chosen counts as one that drops none.

    Args:
        plan: the real choice.
        scores: the table it was made from.
        replicates: of `REPLICATES`.
        choose: the same choice by another table.

    Returns:
        `None` if the choice reads nothing that was resampled, or was made in several rounds.
    """
    needs = set(find_method(plan.method).needs)
    resampled = set(pc.unique(replicates["criterion"]).to_pylist())
    if plan.rounds > 1 or not needs or not needs <= resampled:
        return None
    tables = replicate_tables(replicates, scores, needs | {*SINKS})
    drops = [_drop(choose, table) for table in tables]
    counts = Counter(layer for drop in drops for layer in drop)
    return Stability(
        draws=len(drops),
        same=drops.count(plan.drop) / len(drops),
        dropped={layer: counts[layer] / len(drops) for layer in sorted(counts)},
    )


def _drop(choose: Callable[[Scores], Plan], scores: Scores) -> list[int]:
    """Return the layers that go; none if no choice can be made."""
    try:
        return choose(scores).drop
    except InputError:
        return []
