"""Whether what is asked can be done at all, before anything is measured."""

from __future__ import annotations

from typing import Any

from interlace.errors import InputError
from interlace.methods.registry import named
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
    SLEB,
    TAYLOR,
    WAYS,
    Scores,
)
from interlace.selection.select import protected_layers, select

ON_PROBES = frozenset({MATH, NONMATH, POOLED, CKA})


def check_feasible(n_layers: int, deepstack_layers: int, **asked: Any) -> Plan:
    """Whether a choice can be made at all, before anything is measured.

    It asks the kindest scores. Where triplets alone count, that is equal ones: ties go to lower
    layers, which leaves no gaps. Where pairs may follow, greedy goes furthest when every triplet
    leaves just a pair free before it: two drops of five layers.

    Args:
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features.
        asked: what `select` takes, but for the rounds.

    Returns:
        A plan with as many layers to go as the real one.

    Raises:
        InputError: as `select` does.
    """
    method = asked.get("method", "interlace")
    protection = asked.get("protect_first", "auto"), asked.get("protect_last", "auto")
    protected = protected_layers(method, n_layers, deepstack_layers, *protection)
    equal: dict[tuple[str, int, int], float] = {}
    for span in range(1, n_layers + 1):
        for first in range(n_layers - span + 1):
            equal |= {("cosine", first, span): 0.0, (ANGULAR, first, span): 0.0}
    order = [i for i in range(n_layers) if i not in protected]
    for criterion in WAYS.keys() - {NATIVE, ANGULAR}:
        equal |= {(criterion, i, 1): float(step) for step, i in enumerate(order)}
    if asked.get("shortfall", "pairs") == "pairs":
        for step, i in enumerate(order):
            if (NATIVE, i, 3) in equal:
                equal[NATIVE, i, 3] = float(step % 5 == 2)
            equal[POOLED, i, 1] = float(step % 5 in (2, 3))
    return select(Scores(n_layers, deepstack_layers, equal, {}), **asked)


def check_asked(params: Params, n_layers: int, deepstack_layers: int) -> int | None:
    """Check the method, the ratio and what will be measured against the model.

    Args:
        params: all of them.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features.

    Returns:
        How many layers are to go; none where the budget is yet to tell.

    Raises:
        InputError: more drops than are feasible, a budget that is not one, or a measurement that
            the parameters do not provide, or local healing of nothing.
    """
    asked = params.select.asked() | {"rounds": 1}
    _check_reference(params)
    _check_compensation(params)
    by_budget = params.ratio == "auto"
    if by_budget:
        params.budget.target()
    if by_budget and (params.method == "manual" or not named(params.method).removes):
        raise InputError(f"ratio = auto: {params.method} has nothing to decide; give a ratio")
    much = {"drops": 1} if by_budget else {"ratio": params.ratio}
    plan = check_feasible(n_layers, deepstack_layers, method=params.method, **much, **asked)
    check_measured(params, n_layers, len(plan.drop))
    _check_local_healing(params, plan)
    return None if by_budget else len(plan.drop)


def _check_compensation(params: Params) -> None:
    """Refuse to make up for dropped layers where none is dropped.

    Raises:
        InputError: names both parameters.
    """
    asked, method = params.export.compensate, params.method
    if asked != "none" and named(method).sparsity:
        raise InputError(
            f"export.compensate = {asked}: {method} drops no layer that could be made up for; set"
            " it to none"
        )


def _check_reference(params: Params) -> None:
    """Check that a reference can be trained.

    Raises:
        InputError: the recipe has no end-to-end training, so that there is none.
    """
    if params.reference != "none" and params.finetune.max_steps == 0:
        raise InputError(
            f"reference = {params.reference} is trained end to end, and finetune.max_steps = 0;"
            " set reference to none, or max_steps to -1"
        )


def _check_local_healing(params: Params, plan: Plan) -> None:
    """Check that local healing has something to do, as far as that is known before measuring.

    Args:
        params: all of them.
        plan: what `check_feasible` made; with `manual`, the plan itself.

    Raises:
        InputError: nothing is dropped, nothing is tuned, or what the user named is apart.
    """
    apart = params.method == "manual" and not segments(plan)
    if params.finetune.local_steps and (apart or not plan.drop or not plan.tune):
        raise InputError(
            f"finetune.local_steps = {params.finetune.local_steps}: no tuned layer lies beside a"
            f" dropped one with method = {params.method}, select.tuned = {params.select.tuned};"
            " set it to 0"
        )


def check_measured(params: Params, n_layers: int, drops: int) -> None:
    """Check that the parameters provide what the method reads.

    Raises:
        InputError: names the stage and the parameter that would.
    """
    method, needs = params.method, set(named(params.method).needs)
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
    if SLEB in needs and removable < drops:
        raise InputError(
            f"method = {method} is to drop {drops} layers, and sensitivity.max_ratio ="
            f" {params.sensitivity.max_ratio} removes {removable}; raise it"
        )
    if params.select.rounds > 1 and (not needs or needs & {SLEB, TAYLOR}):
        raise InputError(
            f"select.rounds = {params.select.rounds}: rounds measure similarity again, which"
            f" {method} does not read; set it to 1"
        )
    if params.select.rounds > max(drops, 1) and params.ratio != "auto":
        raise InputError(
            f"select.rounds = {params.select.rounds}: only {drops} layers are to go; lower it"
        )
