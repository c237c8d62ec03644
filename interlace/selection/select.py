"""The choice of layers to drop, tune and freeze: a score table and a method become a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index

from interlace.errors import InputError
from interlace.methods.choice import Choice, Method, Request
from interlace.methods.registry import find_method
from interlace.params.choosing import Auto, Base, Policy, Select, Tuned
from interlace.params.section import validated
from interlace.plan.record import Decision, Group, Plan, Shortfall
from interlace.scores.table import Scores, ScoreTable, read_scores
from interlace.selection.protected import protected_layers
from interlace.selection.rounds import Later, choose_in_rounds
from interlace.selection.tuned import tuned_layers


def select(
    scores: ScoreTable,
    *,
    method: str = "interlace",
    ratio: float | Auto = 0.25,
    drops: int | None = None,
    shortfall: Policy = "pairs",
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
    base: Base | Auto = "auto",
    alpha: float = 0.7,
    seed: int = 0,
    drop: Sequence[int] = (),
    tune: Sequence[int] = (),
    tuned: Tuned = "planned",
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
        protect_first: leading layers that are never dropped nor grouped; `auto`: as many as
            receive DeepStack features, which are added by position, and those of the method's
            paper.
        protect_last: trailing layers that are never dropped nor grouped; `auto`: those of the
            method's paper.
        base: what the ratio is a share of: all layers or the `prunable` ones, those not protected;
            `auto`: as in the method's paper.
        alpha: of `mixed`: weight of the non-math ranking, in [0, 1].
        seed: of methods that draw.
        drop: of `manual`: the layers that go.
        tune: of `manual`: the layers that are tuned.
        tuned: the survivors that are tuned: `planned`, as the method says; `spaced`, as many,
            evenly over the survivors; `anchors`; `all`; `none`.
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
        "protect_first": protect_first,
        "protect_last": protect_last,
        "base": base,
        "alpha": alpha,
        "drop": tuple(drop),
        "tune": tuple(tune),
        "tuned": tuned,
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
            raise InputError("ratio = auto: no budget was decided on; run `dvc repro budget`")
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
    rule, n_layers = find_method(method), scores.n_layers
    if scores.kept_layers not in ((), tuple(range(n_layers))):
        raise InputError(
            "scores were measured on a pruned model; run `dvc repro score` on the dense one"
        )
    protected = protected_layers(
        method, n_layers, scores.deepstack_layers, options.protect_first, options.protect_last
    )
    base = rule.base if options.base == "auto" else options.base
    base_layers = n_layers if base == "all" else n_layers - len(protected)
    if not base_layers:
        raise InputError(
            f"all {n_layers} layers are protected; lower select.protect_first or"
            " select.protect_last"
        )
    if method == "manual":
        drops, ratio = len(options.drop), len(options.drop) / base_layers
    else:
        drops, ratio = _drops_and_ratio(rule, ratio_or_drops, n_layers, base_layers)
    request = Request(drops, frozenset(range(n_layers)) - frozenset(protected), options, seed)
    choice = choose_in_rounds(rule, request, scores, later)
    tune = tuned_layers(options.tuned, choice, n_layers)
    return Plan(
        method=method,
        ratio=ratio,
        base=base,
        base_layers=base_layers,
        rounds=options.rounds,
        tuned=options.tuned,
        decision=ratio_or_drops if isinstance(ratio_or_drops, Decision) else None,
        settings=_settings(method, options, seed),
        sparsity=rule.sparsity,
        n_layers=n_layers,
        drop=sorted(choice.drop),
        tune=sorted(tune),
        freeze=sorted(frozenset(range(n_layers)) - choice.drop - tune),
        groups=[_with_tuned(group, tune) for group in choice.groups],
        protected=protected,
        deepstack_layers=scores.deepstack_layers,
        shortfall=_shortfall(options.shortfall, drops if rule.removes else 0, choice),
        sources=dict(scores.provenance),
    )


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
