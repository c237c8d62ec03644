"""The choice of layers to drop, tune and freeze: a score table and a method become a plan."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Literal

from interlace.errors import InputError
from interlace.methods.registry import find_method
from interlace.params.choosing import Auto, Base, Period, Policy, Select, Tuned
from interlace.params.section import validated
from interlace.plan.record import Decision, Plan
from interlace.scores.table import Scores, ScoreTable, read_scores
from interlace.selection.by_rule import plan_by_rule
from interlace.selection.rounds import Later


def select(
    scores: ScoreTable,
    *,
    method: str = "interlace",
    ratio: float | Auto = 0.25,
    drops: int | None = None,
    shortfall: Policy = "pairs",
    protect: Literal["auto", "none"] | Sequence[int] = "auto",
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
    base: Base | Auto = "auto",
    alpha: float = 0.7,
    seed: int = 0,
    drop: Sequence[int] = (),
    tune: Sequence[int] = (),
    tuned: Tuned = "planned",
    period: Period = "any",
    rounds: int = 1,
    later: Later = (),
    decision: Decision | None = None,
) -> Plan:
    """Decide which layers go.

    Args:
        scores: the score table: a Parquet file or an Arrow table.
        method: a name that `interlace methods` lists.
        ratio: share of the decoder's layers to drop, in (0, 1); `auto`: as `decision` says.
        drops: K itself, instead of a ratio.
        shortfall: what to do when the method's own rule cannot reach K drops.
        protect: layers that are never dropped nor grouped; `auto`: as the next two say, and those
            that make or end a massive activation, which a mean over tokens does not show; `none`:
            those of the method's paper alone; or exactly these layers.
        protect_first: leading layers, with `protect = auto`; `auto`: as many as receive DeepStack
            features, which are added by position, and those of the method's paper.
        protect_last: trailing layers, with `protect = auto`; `auto`: those of the method's paper.
        base: what the ratio is a share of: all layers or the `prunable` ones, those not protected;
            `auto`: as in the method's paper.
        alpha: of `mixed`: weight of the non-math ranking, in [0, 1].
        seed: of methods that draw.
        drop: of `manual`: the layers that go.
        tune: of `manual`: the layers that are tuned.
        tuned: the survivors that are tuned: `planned`, as the method says; `spaced`, as many,
            evenly over the survivors; `anchors`; `all`; `none`.
        period: `keep`: where the kinds of layers repeat in a period, whole periods go, so that
            the kept layers' kinds repeat as before; K is rounded down to whole periods.
        rounds: in how many steps to drop them.
        later: tables measured on the pruned model before each further round, `rounds - 1` of them;
            or a function that measures, given the choice so far.
        decision: how a budget became K; goes with `ratio = auto`.

    Raises:
        InputError: an unknown method, a value out of its range, a measurement that is missing, a
            ratio that drops no layer, or more drops than are feasible; names the argument.
    """
    options = {
        "shortfall": shortfall,
        "protect": protect if isinstance(protect, str) else tuple(protect),
        "protect_first": protect_first,
        "protect_last": protect_last,
        "base": base,
        "alpha": alpha,
        "drop": tuple(drop),
        "tune": tuple(tune),
        "tuned": tuned,
        "period": period,
        "rounds": rounds,
    }
    return select_layers(
        read_scores(scores),
        method,
        resolve_ratio(ratio, decision) if drops is None or ratio == "auto" else index(drops),
        validated(Select, options, "select"),
        seed=seed,
        later=later,
    )


def resolve_ratio(ratio: float | Auto, decision: Decision | None) -> float | Decision:
    """Return the ratio, or the budget's decision if the ratio is `auto`.

    Raises:
        InputError: no decision on `auto`, or a ratio outside (0, 1).
    """
    if ratio == "auto":
        if decision is None:
            raise InputError("ratio = auto: no budget was decided on; pass decision, or a ratio")
        return decision
    if not 0 < ratio < 1:
        raise InputError(f"ratio = {ratio}: must be greater than 0 and less than 1")
    return ratio


def select_layers(
    scores: Scores,
    method: str,
    ratio_or_drops: float | Decision,
    options: Select,
    *,
    seed: int = 0,
    later: Later = (),
) -> Plan:
    """Decide which layers go, by the parameters of `select`.

    Args:
        scores: of the dense model.
        method: a name in `METHODS`.
        ratio_or_drops: a share of the layers (a float in (0, 1)), K itself (an integer), or the
            decision of a budget on K.
        options: how layers are chosen.
        seed: of methods that draw.
        later: see `select`.

    Raises:
        InputError: see `select`.
    """
    rule = find_method(method)
    return plan_by_rule(scores, method, rule, ratio_or_drops, options, seed=seed, later=later)
