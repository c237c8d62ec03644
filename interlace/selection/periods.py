"""Whole periods of layers: without them, the kinds of layers repeat as they did.

A period is as many neighbours as it takes until all kinds of layers repeat. It may begin at any
layer: those after it keep their kinds under their new numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request, neighbours
from interlace.model.kinds import LayerKinds
from interlace.plan.record import Group
from interlace.scores.table import Scores

Best = tuple[Fraction, tuple[int, ...]]  # sum of scores, first layers in order


def of_whole_periods(
    method: str, rule: Method, kinds: LayerKinds | None, drops: int, base_layers: int
) -> tuple[Method, int, int]:
    """Return the rule that drops whole periods only, the layers of one, and K in whole periods.

    Args:
        method: the rule's name.
        rule: how the method chooses.
        kinds: of the decoder's layers.
        drops: K, rounded down to whole periods; as it is where a person names the layers.
        base_layers: the layers that the ratio is a share of.

    Raises:
        InputError: the decoder has no period, K is less than one, or the method cannot choose whole
            ones.
    """
    if kinds is None or kinds.period is None:
        reason = "its kinds do not repeat"
        if kinds is None:
            reason = "all its layers are of one kind, as far as the scores say"
        raise InputError(
            f"select.period = keep: this decoder has no period: {reason}; set it to any"
        )
    if rule.periods is None:
        raise InputError(
            f"select.period = keep: {method} has no score of a whole period of {kinds.period}"
            " layers; choose another method, e.g. interlace, or set it to any"
        )
    period = kinds.period
    if rule.periods == "named":
        return _by_periods(rule, kinds, period), period, drops
    if drops < period:
        raise InputError(
            f"select.period = keep: {drops} of {base_layers} layers are less than a period of"
            f" {period}; the smallest ratio that drops one is"
            f" {math.ceil(1e4 * period / base_layers) / 1e4}"
        )
    return _by_periods(rule, kinds, period), period, drops - drops % period


def _by_periods(rule: Method, kinds: LayerKinds, period: int) -> Method:
    def choose(scores: Scores, request: Request) -> Choice:
        if rule.periods == "named":
            return _checked(rule.choose(scores, request), kinds)
        if rule.periods == "run":
            return _one_run(rule, scores, request, period)
        by_first = (_span_scores if rule.periods == "span" else _sums)(
            rule, scores, request, period
        )
        return _best_periods(by_first, scores, request, period, lowest_first=rule.lowest_first)

    return replace(rule, choose=choose)


def _checked(choice: Choice, kinds: LayerKinds) -> Choice:
    """Return a choice by hand if the kept layers repeat as the dense decoder's do."""
    by_layer = kinds.by_layer
    survivors = [layer for layer in range(len(by_layer)) if layer not in choice.drop]
    for position, layer in enumerate(survivors):
        if by_layer[layer] != by_layer[position]:
            raise InputError(
                f"select.drop = {sorted(choice.drop)}: layer {layer} would be the first of another"
                f" kind than its new number {position} has; drop whole periods of {kinds.period}"
                " layers, or set select.period to any"
            )
    return choice


def _one_run(rule: Method, scores: Scores, request: Request, period: int) -> Choice:
    """Choose a run of as many periods as are asked for, or as fit where fewer will do."""
    strict = replace(request, options=request.options.model_copy(update={"shortfall": "error"}))
    for drops in range(request.drops, 0, -period):
        try:
            return rule.choose(scores, replace(strict, drops=drops))
        except InputError:
            if request.options.shortfall != "fewer":
                raise
    return Choice.of_groups([])


def _span_scores(
    rule: Method, scores: Scores, request: Request, period: int
) -> Mapping[int, float]:
    """Return `S_p` by first layer, p the layers of a period."""
    (criterion,) = rule.needs
    return scores.of_span(period, criterion)


def _sums(rule: Method, scores: Scores, request: Request, period: int) -> Mapping[int, float]:
    """Return the sums of a ranking's values over the layers of each period, by first layer."""
    fewer = request.options.model_copy(update={"shortfall": "fewer"})
    ranking = rule.choose(scores, replace(request, drops=len(request.free), options=fewer))
    values = {group.first: group.score or 0.0 for group in ranking.groups}
    runs = {first: range(first, first + period) for first in values}
    return {
        first: math.fsum(values[layer] for layer in run)
        for first, run in runs.items()
        if values.keys() >= set(run)
    }


def _best_periods(
    by_first: Mapping[int, float], scores: Scores, request: Request, period: int, lowest_first: bool
) -> Choice:
    """Drop the disjoint periods with the best sum of scores; tune as many layers beside them."""
    free = {
        first: -value if lowest_first else value
        for first, value in by_first.items()
        if request.free.issuperset(range(first, first + period))
    }
    sets = best_runs(free, period, request.drops // period)
    most = max(sets) * period
    if most < request.drops and request.options.shortfall != "fewer":
        raise InputError(
            f"{request.drops} layers cannot be dropped: whole periods of {period} layers that may"
            f" go run out at {most}; lower ratio, protect fewer layers, or set select.shortfall to"
            " fewer"
        )
    runs = {first: tuple(range(first, first + period)) for first in sets[max(sets)][1]}
    drop = frozenset(layer for run in runs.values() for layer in run)
    groups = [
        Group(kind="run", layers=run, score=by_first[first], drop=run)
        for first, run in sorted(runs.items(), key=lambda item: (-free[item[0]], item[0]))
    ]
    tune = neighbours(drop, scores.n_layers, request.tuned_before)
    return Choice(groups=tuple(groups), drop=drop, tune=tune)


def best_runs(values: Mapping[int, float], length: int, limit: int) -> dict[int, Best]:
    """Find the disjoint runs with the greatest sum, for each number of runs that fits.

    A dynamic program from the last layer down: a run begins at a layer, or none does. Sums are
    exact; of equal ones, the set whose first difference lies lower is taken.

    Args:
        values: scores of the runs, by first layer.
        length: layers of a run.
        limit: runs to take at most.
    """
    end = max(values, default=-1) + 1
    best_from: list[dict[int, Best]] = [{0: (Fraction(0), ())}] * (end + length)
    for first in range(end - 1, -1, -1):
        best = dict(best_from[first + 1])
        if first in values:
            for count, (total, firsts) in best_from[first + length].items():
                total += Fraction(values[first])
                if count < limit and (count + 1 not in best or total >= best[count + 1][0]):
                    best[count + 1] = (total, (first, *firsts))
        best_from[first] = best
    return best_from[0]
