"""Checks that the parameters can lead to a plan, before anything is measured."""

from __future__ import annotations

from typing import Any

from interlace.data.validation import no_rows_to_judge
from interlace.errors import InputError
from interlace.methods.exchange import check_passes
from interlace.methods.registry import find_method
from interlace.model.kinds import LayerKinds
from interlace.model.paths import survivors
from interlace.params.choosing import Select
from interlace.params.measuring import SCREENED, Mode
from interlace.params.whole import Params
from interlace.plan.record import Plan
from interlace.plan.segments import segments
from interlace.scores.table import (
    ANGULAR,
    CKA,
    MATH,
    NATIVE,
    NONMATH,
    POOLED,
    SEARCH,
    SLEB,
    TAYLOR,
    Scores,
)
from interlace.selection.candidates import compared_methods, one_plan_only
from interlace.selection.protected import layers_of, protected_layers
from interlace.selection.select import select_layers

ON_PROBES = frozenset({MATH, NONMATH, POOLED, CKA})


def check_parameters(
    params: Params, n_layers: int, deepstack_layers: int, kinds: LayerKinds | None = None
) -> int | None:
    """Check the method, the ratio and the measurements against the model.

    Args:
        params: all parameters.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features.
        kinds: of the layers, where they differ.

    Returns:
        How many layers are to go; `None` if a budget decides later.

    Raises:
        InputError: more drops than are feasible, a budget without one target, a measurement that
            the parameters do not provide, or local healing of nothing.
    """
    _check_reference(params)
    _check_compensation(params)
    by_budget = params.ratio == "auto"
    if by_budget:
        params.budget.target()
    if by_budget and (params.method == "manual" or not find_method(params.method).removes):
        raise InputError(f"ratio = auto: {params.method} has nothing to decide; set a ratio")
    if by_budget and params.select.period == "keep":
        raise InputError(
            "ratio = auto: a budget decides on single layers, and select.period = keep drops whole"
            " periods; set a ratio, or select.period to any"
        )
    ratio_or_drops = 1 if params.ratio == "auto" else params.ratio
    plan = feasible_plan(
        n_layers,
        deepstack_layers,
        params.method,
        ratio_or_drops,
        params.select,
        params.collect.mode,
        kinds,
    )
    check_measurements(params, n_layers, len(plan.drop))
    _check_spans(params, plan.period)
    if params.select.candidates:
        _check_candidates(params, n_layers, deepstack_layers, len(plan.drop))
    _check_passes(params, n_layers, deepstack_layers)
    _check_local_healing(params, plan)
    return None if by_budget else len(plan.drop)


def feasible_plan(
    n_layers: int,
    deepstack_layers: int,
    method: str,
    ratio_or_drops: float,
    options: Select,
    mode: Mode = "residual",
    kinds: LayerKinds | None = None,
) -> Plan:
    """Choose by made-up scores that let the method drop as many layers as any scores do.

    Args:
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features.
        method: a name in `METHODS`.
        ratio_or_drops: a share of the layers, or K as an integer.
        options: how layers are chosen; rounds do not count.
        mode: how similarity is measured; `reference` gives the last layer no score.
        kinds: of the layers, where they differ.

    Returns:
        A plan that drops as many layers as the real one.

    Raises:
        InputError: as `select` does.
    """
    rule = find_method(method)
    protected = layers_of(protected_layers(rule, n_layers, deepstack_layers, options))
    free = [i for i in range(n_layers) if i not in protected]
    scored = n_layers - 1 if mode == "reference" else n_layers
    values = _favourable_values(n_layers, scored, free, options)
    once = options.model_copy(update={"rounds": 1})
    scores = Scores(n_layers, deepstack_layers, values, {}, layer_kinds=kinds)
    return select_layers(scores, method, ratio_or_drops, once)


def _favourable_values(
    n_layers: int, scored: int, free: list[int], options: Select
) -> dict[tuple[str, int, int], float]:
    """Make up scores by which greedy choices go furthest.

    Where triplets alone count, scores are equal: ties go to lower layers, which leaves no gaps.
    Where pairs may follow, every triplet leaves just a pair free before it: two drops of five
    layers.

    Args:
        n_layers: L, of the decoder.
        scored: leading layers whose similarity is measured.
        free: layers that are not protected.
        options: how layers are chosen.
    """
    values: dict[tuple[str, int, int], float] = {}
    for span in range(1, scored + 1):
        for first in range(scored - span + 1):
            values |= {(NATIVE, first, span): 0.0, (ANGULAR, first, span): 0.0}
    for layer in range(n_layers):
        index = (layer - min(free, default=0)) % n_layers  # the free layers come first
        values |= {(criterion, layer, 1): float(index) for criterion in (SLEB, TAYLOR)}
        if layer < scored:
            values |= {(criterion, layer, 1): float(index) for criterion in (MATH, NONMATH)}
            favoured = options.shortfall == "pairs" and index % 5 in (2, 3)
            values[POOLED, layer, 1] = float(favoured)
            if (NATIVE, layer, 3) in values:
                values[NATIVE, layer, 3] = float(favoured and index % 5 == 2)
        if 0 < layer < scored:  # compared with the layer before it
            values[CKA, layer, 1] = float(index)
    for size in range(1, len(free) + 1):
        values |= {(f"{SEARCH}/{size}", layer, 1): 0.0 for layer in free[:size]}
        values[SEARCH, free[size - 1], 1] = float(size)
    return values


def _check_candidates(params: Params, n_layers: int, deepstack_layers: int, drops: int) -> None:
    """Check that there are several plans to heal and compare, as far as is known before measuring.

    Raises:
        InputError: the methods have one plan, one of them cannot drop as many layers, or what it
            reads is not measured; names the parameter.
    """
    options, subject = params.select, f"select.candidates = {params.select.candidates}"
    methods = compared_methods(params.method, options)
    if options.rounds > 1:
        raise InputError(
            f"{subject}: plans of one round are compared, and select.rounds = {options.rounds}; set"
            " rounds to 1, or candidates to 0"
        )
    if params.data.calibration_fraction == 1:
        raise no_rows_to_judge()
    for method in methods:
        try:
            if not find_method(method).removes:
                raise InputError(f"{method} drops no layer, so there is no plan to compare")
            feasible_plan(n_layers, deepstack_layers, method, drops, options, params.collect.mode)
            check_measurements(params.model_copy(update={"method": method}), n_layers, drops)
        except InputError as error:
            further = f"select.candidate_methods, {method}"
            raise InputError(
                f"{subject if method == params.method else further}: {error}"
            ) from None
    if methods == ["manual"] or (options.candidates == 1 and len(methods) == 1):
        raise one_plan_only(params.method, options)
    criteria = {SLEB, SEARCH, TAYLOR} & {c for m in methods for c in find_method(m).needs}
    if len(criteria) > 1:
        raise InputError(
            f"{subject}: {' and '.join(sorted(criteria))} are measured in runs of their own; leave"
            " one of them in method and select.candidate_methods"
        )


def _check_compensation(params: Params) -> None:
    """Refuse compensation with a method that drops no layer.

    Raises:
        InputError: names both parameters.
    """
    compensate, method = params.export.compensate, params.method
    if compensate != "none" and find_method(method).sparsity:
        raise InputError(
            f"export.compensate = {compensate}: {method} drops no layer to compensate for; set it"
            " to none"
        )


def _check_reference(params: Params) -> None:
    """Check that a reference can be trained.

    Raises:
        InputError: the recipe has no end-to-end training.
    """
    if params.reference != "none" and params.finetune.max_steps == 0:
        raise InputError(
            f"reference = {params.reference} is trained end to end, and finetune.max_steps = 0;"
            " set reference to none, or max_steps to -1"
        )


def _check_local_healing(params: Params, plan: Plan) -> None:
    """Check that local healing has something to do, as far as is known before measuring.

    Args:
        params: all parameters.
        plan: of `feasible_plan`; with `manual`, the plan itself.

    Raises:
        InputError: nothing is dropped or tuned, or no tuned layer lies beside a dropped one.
    """
    separate = params.method == "manual" and not segments(plan)
    if params.heal.local_steps and (separate or not plan.drop or not plan.tune):
        raise InputError(
            f"heal.local_steps = {params.heal.local_steps}: no tuned layer lies beside a"
            f" dropped one with method = {params.method}, select.tuned = {params.select.tuned};"
            " set it to 0"
        )


def _check_spans(params: Params, period: int) -> None:
    """Check that spans as long as a period are scored, where a method chooses periods by them.

    Raises:
        InputError: names the parameter.
    """
    longest = params.collect.max_span
    if find_method(params.method).periods == "span" and longest and longest < period:
        raise InputError(
            f"select.period = keep: {params.method} needs spans of {period} layers, and"
            f" collect.max_span = {longest}; leave it empty to measure every span"
        )


def loss_criterion(params: Params, n_layers: int, deepstack_layers: int) -> dict[str, Any] | None:
    """Return the `LossCriterion` that a method reads, as plain values for a file."""
    rules = [find_method(method) for method in compared_methods(params.method, params.select)]
    rules = [rule for rule in rules if {SLEB, SEARCH, TAYLOR} & {*rule.needs}]
    if not rules:
        return None
    rule = rules[0]
    (criterion,) = {SLEB, SEARCH, TAYLOR} & {*rule.needs}
    protected = layers_of(protected_layers(rule, n_layers, deepstack_layers, params.select))
    return {"criterion": criterion, "protected": [] if criterion == TAYLOR else protected}


def _check_passes(params: Params, n_layers: int, deepstack_layers: int) -> None:
    """Check that the budget of a search allows exchanges.

    Raises:
        InputError: it does not; names the least that does.
    """
    needed = loss_criterion(params, n_layers, deepstack_layers)
    if needed and needed["criterion"] == SEARCH:
        free = survivors(n_layers, needed["protected"])
        largest = min(int(params.sensitivity.max_ratio * n_layers + 1e-9), len(free))
        share = 1 / SCREENED if params.sensitivity.samples >= SCREENED else 1
        check_passes(params.sensitivity.passes, n_layers, free, largest, share)


def check_measurements(params: Params, n_layers: int, drops: int) -> None:
    """Check that the parameters provide the measurements that the method reads.

    Raises:
        InputError: names the stage and the parameter that provides them.
    """
    method, needs = params.method, set(find_method(params.method).needs)
    probes, longest = params.probes, params.collect.max_span or n_layers
    if needs & ON_PROBES and not probes.per_task:
        raise InputError(
            f"method = {method} is measured on probes, and probes.per_task = 0; set it, e.g. to 100"
        )
    if needs & {POOLED, CKA} and params.collect.pooled == "none":
        raise InputError(f"method = {method} needs collect.pooled = probes (or all), not none")
    if ANGULAR in needs and longest < drops:
        raise InputError(
            f"method = {method} needs spans of {drops} layers, and collect.max_span = {longest};"
            " leave it empty to measure every span"
        )
    removable = int(params.sensitivity.max_ratio * n_layers + 1e-9)
    if needs & {SLEB, SEARCH} and removable < drops:
        raise InputError(
            f"method = {method} is to drop {drops} layers, and sensitivity.max_ratio ="
            f" {params.sensitivity.max_ratio} removes {removable}; raise it"
        )
    if params.select.rounds > 1 and (not needs or needs & {SLEB, SEARCH, TAYLOR}):
        raise InputError(
            f"select.rounds = {params.select.rounds}: rounds measure similarity again, which"
            f" {method} does not read; set it to 1"
        )
    if params.select.rounds > max(drops, 1) and params.ratio != "auto":
        raise InputError(
            f"select.rounds = {params.select.rounds}: only {drops} layers are to go; lower it"
        )
