"""Properties of all methods, whatever the scores."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from methods import made_up
from methods.made_up import POLICIES

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select

CHOOSING = sorted(METHODS.keys() - {"manual"})
DROPPING = sorted(name for name in CHOOSING if METHODS[name].removes)
LAYER_BY_LAYER = ["cka", "math-aware", "mixed", "nonmath-aware", "shortgpt", "sleb", "taylor"]
BY_RANK = sorted({*DROPPING} - {"random", "mixed", "interlace-optimal", "interlace-pooled"})
IN_GROUPS = ["interlace", "interlace-oa", "interlace-optimal", "interlace-pooled", "interlace-tn"]


@functools.cache
def plans(method: str, cases: int = 60) -> list[tuple[made_up.Question, Plan]]:
    """Random requests, and the choices of those that can be met."""
    rng = np.random.default_rng(len(method))
    answers = []
    for case in range(cases):
        asked = made_up.question(method, rng, case, longest=60)
        try:
            answers.append((asked, asked.plan()))
        except InputError:
            continue
    assert len(answers) > cases / 4
    return answers


def roles(plan: Plan) -> tuple[list[int], list[int]]:
    return plan.drop, plan.tune


@pytest.mark.parametrize("method", CHOOSING)
def test_every_layer_has_one_role_and_protected_ones_stay(method: str) -> None:
    for asked, plan in plans(method):
        layers = range(asked.scores.n_layers)
        assert sorted(plan.drop + plan.tune + plan.freeze) == list(layers)
        assert plan.protected == sorted({*layers} - {*asked.free})
        assert not {*plan.drop} & {*plan.protected}


@pytest.mark.parametrize("method", DROPPING)
def test_k_layers_go_and_as_many_are_tuned_or_the_plan_says_how_many_are_missing(
    method: str,
) -> None:
    for asked, plan in plans(method):
        shortfall = plan.shortfall
        assert (shortfall.wanted, shortfall.policy) == (asked.drops, asked.options.shortfall)
        assert shortfall.missing == asked.drops - len(plan.drop)
        assert shortfall.missing == 0 or shortfall.policy == "fewer"
        assert len(plan.tune) == min(len(plan.drop), plan.n_layers - len(plan.drop))


@pytest.mark.parametrize("method", DROPPING)
def test_the_groups_add_up_to_the_plan(method: str) -> None:
    for _, plan in plans(method):
        assert sorted(i for group in plan.groups for i in group.drop) == plan.drop
        assert all(set(group.tune) <= set(plan.tune) for group in plan.groups)


@pytest.mark.parametrize("method", IN_GROUPS)
def test_groups_are_unprotected_neighbours_that_share_no_layer(method: str) -> None:
    for asked, plan in plans(method):
        layers = [i for group in plan.groups for i in group.layers]
        assert len(layers) == len(set(layers)) and set(layers) <= set(asked.free)
        for group in plan.groups:
            assert group.layers == tuple(range(group.first, group.first + group.span))
            assert {*group.drop, *group.tune} == set(group.layers[:2])
            assert group.anchor == (group.first + 2 if group.kind == "triplet" else None)
        assert {group.anchor for group in plan.groups} - {None} <= set(plan.freeze)


@pytest.mark.parametrize("method", DROPPING)
@pytest.mark.parametrize("policy", POLICIES)
def test_more_than_can_go_is_refused_with_the_largest_k_which_is_feasible(
    method: str, policy: Any
) -> None:
    rng = np.random.default_rng(3)
    for n_layers in (4, 9, 28):
        free = list(range(1, n_layers - 1))
        scores = made_up.table_for(method, rng, n_layers, removable=free)
        choose = functools.partial(
            select, scores, method=method, protect_first=1, protect_last=1, shortfall=policy
        )
        if policy == "fewer":
            plan = choose(drops=n_layers - 1)
            assert plan.shortfall.missing == n_layers - 1 - len(plan.drop) > 0
            continue
        with pytest.raises(InputError, match=r"largest feasible K is \d+") as caught:
            choose(drops=n_layers - 1)
        assert "\n" not in str(caught.value)
        largest = int(re.findall(r"largest feasible K is (\d+)", str(caught.value))[0])
        assert len(choose(drops=largest).drop) == largest


@pytest.mark.parametrize("method", CHOOSING)
def test_nothing_goes_where_all_layers_are_protected_or_k_is_0(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 8)
    choose = functools.partial(select, scores, method=method, base="all")
    assert choose(drops=2, protect_first=8, shortfall="fewer").drop == []
    assert all(choose(drops=0, shortfall=policy).drop == [] for policy in POLICIES)
    if METHODS[method].removes:
        with pytest.raises(InputError, match="largest feasible K is 0"):
            choose(drops=2, protect_first=8)


@pytest.mark.parametrize("method", CHOOSING)
def test_the_same_request_has_the_same_answer_in_any_order_of_rows(method: str) -> None:
    for asked, plan in plans(method)[:10]:
        assert asked.plan() == plan
        values = dict(reversed(asked.scores.values.items()))
        assert asked.plan(replace(asked.scores, values=values)) == plan


@pytest.mark.parametrize("method", BY_RANK)
def test_only_the_order_of_scores_matters_to_methods_that_rank(method: str) -> None:
    for asked, plan in plans(method):
        values = {key: math.exp(3 * value) - 5 for key, value in asked.scores.values.items()}
        assert roles(asked.plan(replace(asked.scores, values=values))) == roles(plan)


@pytest.mark.parametrize("method", ["mixed", "interlace-optimal", "interlace-pooled"])
def test_unit_and_origin_of_scores_do_not_matter_to_methods_that_add(method: str) -> None:
    rng = np.random.default_rng(5)
    for n_layers in range(8, 60):
        scores = made_up.table_for(method, rng, n_layers)
        moved = replace(scores, values={k: 7 * value - 3 for k, value in scores.values.items()})
        assert roles(select(moved, method=method)) == roles(select(scores, method=method))


@pytest.mark.parametrize("method", DROPPING)
def test_scores_of_protected_layers_do_not_matter(method: str) -> None:
    rng = np.random.default_rng(6)
    for n_layers in range(12, 40):
        free = list(range(3, n_layers - 2))
        scores = made_up.table_for(method, rng, n_layers, removable=free)
        other = made_up.table_for(method, rng, n_layers)
        inside = {
            key: value if {key[1], key[1] + key[2] - 1} <= set(free) else other.values[key]
            for key, value in scores.values.items()
        }
        choose = functools.partial(select, method=method, drops=2, protect_first=3, protect_last=2)
        assert choose(replace(scores, values=inside)) == choose(scores)


@pytest.mark.parametrize("method", [*LAYER_BY_LAYER, "random", "interlace-tn"])
def test_a_smaller_k_drops_some_of_the_layers_that_a_larger_one_does(method: str) -> None:
    rng = np.random.default_rng(7)
    options: Any = {"protect_first": 1, "protect_last": 1, "shortfall": "fewer"}
    for n_layers in (8, 28, 36):
        free = list(range(1, n_layers - 1))
        scores = made_up.table_for(method, rng, n_layers, decimals=2, removable=free)
        dropped = [select(scores, method=method, drops=k, **options).drop for k in free]
        assert all(set(small) <= set(large) for small, large in pairwise(dropped))


@pytest.mark.parametrize("method", ["interlace", "interlace-oa", "interlace-pooled"])
@pytest.mark.parametrize("policy", ["pairs", "fewer"])
def test_a_smaller_k_takes_the_first_groups_of_a_larger_one(method: str, policy: Any) -> None:
    rng = np.random.default_rng(8)
    for n_layers in (8, 28, 36):
        scores = made_up.table_for(method, rng, n_layers, decimals=2)
        options: Any = {"method": method, "shortfall": policy, "protect_first": 1}
        for large in range(2, n_layers // 4 + 1):
            groups = select(scores, drops=large, **options).groups
            assert select(scores, drops=large - 1, **options).groups == groups[: large - 1]


@pytest.mark.parametrize(("n_layers", "ratio", "drops"), [(3, 0.4, 1), (28, 0.25, 7), (36, 0.1, 3)])
def test_dense_ft_drops_none_and_tunes_the_last_k(n_layers: int, ratio: float, drops: int) -> None:
    plan = select(Scores(n_layers, 3, {}, {}), method="dense-ft", ratio=ratio)
    assert roles(plan) == ([], list(range(n_layers - drops, n_layers)))
    assert (plan.shortfall.wanted, plan.shortfall.missing) == (0, 0)
