"""The plan that one method's rule makes of a score table.

Nothing here knows the other methods, so that what needs one rule alone does not change with them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.params.choosing import Policy, Select
from interlace.plan.record import Decision, Group, Plan, Shortfall
from interlace.scores.sinks import sink_layers
from interlace.scores.table import Scores
from interlace.selection.periods import of_whole_periods
from interlace.selection.protected import layers_of, protected_layers, spared_sinks
from interlace.selection.rounds import Later, choose_in_rounds
from interlace.selection.tuned import tuned_layers


def plan_by_rule(
    scores: Scores,
    method: str,
    rule: Method,
    ratio_or_drops: float | Decision,
    options: Select,
    *,
    seed: int = 0,
    later: Later = (),
) -> Plan:
    """Decide which layers go, by a method's rule.

    Args:
        scores: of the dense model.
        method: the rule's name, for the plan.
        rule: how the method chooses.
        ratio_or_drops: see `select.select_layers`.
        options: how layers are chosen.
        seed: of methods that draw.
        later: see `select.select`.

    Raises:
        InputError: see `select.select`.
    """
    n_layers = scores.n_layers
    if scores.kept_layers not in ((), tuple(range(n_layers))):
        raise InputError("scores were measured on a pruned model; measure the dense one")
    protected = protected_layers(rule, n_layers, scores.deepstack_layers, options)
    free = frozenset(range(n_layers)) - frozenset(layers_of(protected))
    base = rule.base if options.base == "auto" else options.base
    base_layers = n_layers if base == "all" else len(free)  # known before sinks are measured
    if not base_layers:
        raise InputError(
            f"all {n_layers} layers are protected; lower select.protect_first or"
            " select.protect_last, or shorten select.protect"
        )
    if method == "manual":
        drops, ratio = len(options.drop), len(options.drop) / base_layers
    else:
        drops, ratio = _drops_and_ratio(rule, ratio_or_drops, n_layers, base_layers)
    period, kinds = 0, scores.layer_kinds
    if options.period == "keep" and rule.removes:
        rule, period, drops = of_whole_periods(method, rule, kinds, drops, base_layers)
    spared = free & spared_sinks(rule, options, scores)
    choice = _choose(rule, Request(drops, free, options, seed), spared, scores, later)
    if sinks := sorted((spared | choice.spared) & free - choice.drop):
        protected["sink"] = sinks
    tune = tuned_layers(options.tuned, choice, n_layers)
    return Plan(
        method=method,
        ratio=ratio,
        base=base,
        base_layers=base_layers,
        rounds=options.rounds,
        heal_steps=options.heal_steps if options.rounds > 1 else 0,
        tuned=options.tuned,
        decision=ratio_or_drops if isinstance(ratio_or_drops, Decision) else None,
        settings=_settings(method, options, seed),
        sparsity=rule.sparsity,
        n_layers=n_layers,
        drop=sorted(choice.drop),
        tune=sorted(tune),
        freeze=sorted(frozenset(range(n_layers)) - choice.drop - tune),
        groups=[_with_tuned(group, tune) for group in choice.groups],
        protected=layers_of(protected),
        protection=protected,
        sinks=sink_layers(scores),
        deepstack_layers=scores.deepstack_layers,
        layer_kinds=kinds,
        period=period,
        shortfall=_shortfall(options.shortfall, drops if rule.removes else 0, choice),
        sources=dict(scores.provenance),
    )


def _choose(
    rule: Method, request: Request, spared: frozenset[int], scores: Scores, later: Later
) -> Choice:
    """Choose among the free layers without the spared ones.

    Raises:
        InputError: as the method does; where it could choose but for the spared layers, names them.
    """
    try:
        free = request.free - spared
        return choose_in_rounds(rule, replace(request, free=free), scores, later)
    except InputError as error:
        if not spared:
            raise
        try:
            choose_in_rounds(rule, request, scores, later)
        except InputError:
            raise error from None
        layers = ", ".join(map(str, sorted(spared)))
        raise InputError(
            f"{error}; select.protect = auto spares layers {layers}, which make or end a massive"
            " activation: none drops them all the same"
        ) from None


def _drops_and_ratio(
    rule: Method, amount: float | Decision, n_layers: int, base_layers: int
) -> tuple[int, float]:
    """Return K, and the share of the base that it is or was set as."""
    if isinstance(amount, Decision):
        amount = amount.drops
    if isinstance(amount, int) and not 0 <= amount < n_layers:
        raise InputError(
            f"drops = {amount}: must lie in [0, {n_layers - 1}]; one layer at least stays"
        )
    if rule.sparsity:
        return 0, 0.0  # whatever the ratio
    if isinstance(amount, int):
        return amount, amount / base_layers
    return layers_to_drop(amount, base_layers), amount


def layers_to_drop(ratio: float, n_layers: int) -> int:
    """Return `K = floor(ratio * L)`, immune to binary fractions (0.29 of 100 is 29).

    Args:
        ratio: share of the layers, in (0, 1).
        n_layers: the layers it is a share of: all, or those not protected.

    Raises:
        InputError: no layer would go.
    """
    drops = math.floor(ratio * n_layers + 1e-9)
    if drops < 1:
        raise InputError(
            f"ratio = {ratio}: drops none of {n_layers} layers;"
            f" the smallest ratio that drops one is {math.ceil(1e4 / n_layers) / 1e4}"
        )
    return drops


def _with_tuned(group: Group, tune: frozenset[int]) -> Group:
    """Return a group that names only those of its layers that are tuned in the end."""
    return group.model_copy(update={"tune": tuple(i for i in group.tune if i in tune)})


def _settings(method: str, options: Select, seed: int) -> dict[str, float | int]:
    """Return what the method reads beside the ratio."""
    settings: dict[str, dict[str, float | int]] = {
        "mixed": {"alpha": options.alpha},
        "random": {"seed": seed},
    }
    return settings.get(method, {})


def _shortfall(policy: Policy, drops: int, choice: Choice) -> Shortfall:
    kinds = [group.kind for group in choice.groups]
    return Shortfall(
        policy=policy,
        wanted=drops,
        triplets=kinds.count("triplet"),
        pairs=kinds.count("pair"),
        missing=drops - len(choice.drop),
    )
