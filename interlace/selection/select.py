"""Select the layers to drop, tune and freeze."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from interlace.errors import InputError
from interlace.methods.choice import Request
from interlace.methods.registry import named
from interlace.plan.record import (
    Auto,
    Base,
    Decision,
    Group,
    Plan,
    Policy,
    Shortfall,
    Tuned,
)
from interlace.scores.table import Scores, read_scores
from interlace.selection.rounds import Later, Table, choose_in_rounds
from interlace.selection.tuned import tuned_layers


def layers_to_drop(ratio: float, n_layers: int) -> int:
    """`K = floor(ratio * L)`, immune to binary fractions (0.29 of 100 is 29).

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


def protected_layers(
    method: str,
    n_layers: int,
    deepstack_layers: int,
    protect_first: int | Auto = "auto",
    protect_last: int | Auto = "auto",
) -> list[int]:
    """The layers that are never dropped nor grouped.

    Args:
        method: whose paper's own rule `auto` follows.
        n_layers: L, of the decoder.
        deepstack_layers: leading layers that receive DeepStack features, added by position.
        protect_first: leading layers; `auto`: the DeepStack layers, and those of the method's rule.
        protect_last: trailing layers; `auto`: those of the method's rule.

    Raises:
        InputError: an unknown method.
    """
    rule = named(method)
    first = max(deepstack_layers, rule.protect_first) if protect_first == "auto" else protect_first
    last = rule.protect_last if protect_last == "auto" else protect_last
    return [i for i in range(n_layers) if i < first or i >= n_layers - last]


def select(
    scores: Table | Scores,
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
        method: a name in `methods.METHODS`.
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
        tuned: which survivors are tuned: `planned`, as the method says; `spaced`, as many, evenly
            over the survivors; `anchors`; `all`; `none`.
        rounds: in how many steps to drop them.
        later: tables measured on the pruned model before each further round, `rounds - 1` of them;
            or a function that measures, given the choice so far.
        decision: how a budget became K; goes with `ratio = auto`.

    Raises:
        InputError: an unknown method, a value out of its range, a measurement that is missing, a
            ratio that drops no layer, or more drops than are feasible.
    """
    rule = named(method)
    table = scores if isinstance(scores, Scores) else read_scores(scores)
    _check(table, ratio, shortfall, tuned, alpha)
    if ratio == "auto":
        if decision is None:
            raise InputError("ratio = auto: no budget was decided on; run `dvc repro budget`")
        drops = decision.drops
    n, everyone = table.n_layers, range(table.n_layers)
    protected = protected_layers(method, n, table.deepstack_layers, protect_first, protect_last)
    base = rule.base if base == "auto" else base
    base_layers = n if base == "all" else n - len(protected)
    if not base_layers:
        raise InputError(
            f"all {n} layers are protected; lower select.protect_first or select.protect_last"
        )
    if drops is not None and not 0 <= drops < n:
        raise InputError(f"drops = {drops}: must lie in [0, {n - 1}]; one layer at least stays")
    if method == "manual":
        drops = len(drop)
    if rule.sparsity:
        drops = 0  # whatever the ratio
    if drops is None and ratio != "auto":
        wanted, share = layers_to_drop(ratio, base_layers), ratio
    else:
        wanted = drops or 0
        share = wanted / base_layers
    request = Request(
        drops=wanted,
        free=frozenset(everyone) - frozenset(protected),
        shortfall=shortfall,
        seed=seed,
        alpha=alpha,
        given_drop=tuple(drop),
        given_tune=tuple(tune),
    )
    choice = choose_in_rounds(rule, request, table, rounds, later)
    to_tune = tuned_layers(tuned, choice, n)
    to_go = wanted if rule.removes else 0
    return Plan(
        method=method,
        ratio=share,
        base=base,
        base_layers=base_layers,
        rounds=rounds,
        tuned=tuned,
        decision=decision if ratio == "auto" else None,
        settings=_settings(method, alpha, seed),
        sparsity=rule.sparsity,
        n_layers=n,
        drop=sorted(choice.drop),
        tune=sorted(to_tune),
        freeze=sorted(frozenset(everyone) - choice.drop - to_tune),
        groups=[_as_tuned(group, to_tune) for group in choice.groups],
        protected=protected,
        deepstack_layers=table.deepstack_layers,
        shortfall=Shortfall(
            policy=shortfall,
            wanted=to_go,
            triplets=sum(group.kind == "triplet" for group in choice.groups),
            pairs=sum(group.kind == "pair" for group in choice.groups),
            missing=to_go - len(choice.drop),
        ),
        sources=dict(table.provenance),
    )


def _as_tuned(group: Group, tuned: frozenset[int]) -> Group:
    """A group with those of its layers that are really tuned."""
    return group.model_copy(update={"tune": tuple(i for i in group.tune if i in tuned)})


def _check(table: Scores, ratio: float | Auto, shortfall: str, tuned: str, alpha: float) -> None:
    """Refuse values that no choice can be made with."""
    for name, value, allowed in (("shortfall", shortfall, Policy), ("tuned", tuned, Tuned)):
        if value not in get_args(allowed):
            raise InputError(
                f"select.{name} = {value!r}: must be one of {', '.join(get_args(allowed))}"
            )
    if table.kept not in ((), tuple(range(table.n_layers))):
        raise InputError(
            "scores were measured on a pruned model; run `dvc repro score` on the dense one"
        )
    if ratio != "auto" and not 0 < ratio < 1:
        raise InputError(f"ratio = {ratio}: must be greater than 0 and less than 1")
    if not 0 <= alpha <= 1:
        raise InputError(f"select.alpha = {alpha}: must lie in [0, 1]")


def _settings(method: str, alpha: float, seed: int) -> dict[str, float | int]:
    """What the method was told beside the ratio, of what it reads."""
    told: dict[str, dict[str, float | int]] = {
        "mixed": {"alpha": alpha},
        "random": {"seed": seed},
    }
    return told.get(method, {})
