"""What holds for every method, whatever the scores."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def plans(method: str, cases: int = 60, longest: int = 60) -> list[tuple[made_up.Question, Plan]]:
    """What the method answers, where it does."""
    rng = np.random.default_rng(len(method))
    found = []
    for case in range(cases):
        asked = made_up.question(method, rng, case, longest)
        try:
            found.append((asked, select(asked.scores, method=method, **asked.asked())))
        except InputError:
            continue
    assert len(found) > cases / 4
    return found


@pytest.mark.parametrize("method", CHOOSING)
def test_drop_tune_and_freeze_hold_every_layer_once(method: str) -> None:
    for asked, plan in plans(method):
        assert sorted(plan.drop + plan.tune + plan.freeze) == list(range(asked.scores.n_layers))


@pytest.mark.parametrize("method", CHOOSING)
def test_protected_layers_are_never_dropped(method: str) -> None:
    for asked, plan in plans(method):
        outside = set(range(asked.scores.n_layers)) - set(asked.free)
        assert plan.protected == sorted(outside)
        assert not set(plan.drop) & outside


@pytest.mark.parametrize("method", IN_GROUPS)
def test_protected_layers_are_never_grouped(method: str) -> None:
    for asked, plan in plans(method):
        assert {i for group in plan.groups for i in group.layers} <= set(asked.free)


@pytest.mark.parametrize("method", DROPPING)
def test_k_layers_go_or_the_plan_says_how_many_are_missing(method: str) -> None:
    for asked, plan in plans(method):
        said = plan.shortfall
        assert (said.wanted, said.policy) == (asked.drops, asked.shortfall)
        assert said.missing == asked.drops - len(plan.drop)
        assert said.missing == 0 or asked.shortfall == "fewer"


@pytest.mark.parametrize("method", DROPPING)
def test_as_many_are_tuned_as_dropped_where_layers_are_left(method: str) -> None:
    for asked, plan in plans(method):
        left = asked.scores.n_layers - len(plan.drop)
        assert len(plan.tune) == min(len(plan.drop), left)


@pytest.mark.parametrize("method", DROPPING)
def test_the_groups_add_up_to_the_plan(method: str) -> None:
    for _, plan in plans(method):
        assert sorted(i for group in plan.groups for i in group.drop) == plan.drop
        assert all(set(group.tune) <= set(plan.tune) for group in plan.groups)


@pytest.mark.parametrize("method", IN_GROUPS)
def test_groups_are_neighbours_that_share_no_layer(method: str) -> None:
    for _, plan in plans(method):
        layers = [i for group in plan.groups for i in group.layers]
        assert len(layers) == len(set(layers))
        for group in plan.groups:
            assert group.layers == tuple(range(group.first, group.first + group.span))
            assert {*group.drop, *group.tune} == set(group.layers[:2])
            assert group.anchor == (group.first + 2 if group.kind == "triplet" else None)


@pytest.mark.parametrize("method", IN_GROUPS)
def test_anchors_are_frozen(method: str) -> None:
    for _, plan in plans(method):
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
        about = {"method": method, "protect_first": 1, "protect_last": 1}
        if policy == "fewer":
            plan = select(scores, drops=n_layers - 1, shortfall=policy, **about)
            assert plan.shortfall.missing == n_layers - 1 - len(plan.drop) > 0
            continue
        with pytest.raises(InputError, match=r"largest feasible K is \d+") as caught:
            select(scores, drops=n_layers - 1, shortfall=policy, **about)
        assert "\n" not in str(caught.value)
        largest = int(str(caught.value).split("largest feasible K is ")[1].split()[0].strip(":);"))
        assert len(select(scores, drops=largest, shortfall=policy, **about).drop) == largest


@pytest.mark.parametrize("method", CHOOSING)
def test_nothing_is_dropped_where_every_layer_is_protected(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 8)
    plan = select(scores, method=method, drops=2, protect_first=8, shortfall="fewer", base="all")
    assert plan.drop == []


@pytest.mark.parametrize("method", DROPPING)
def test_every_layer_protected_is_refused(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 8)
    with pytest.raises(InputError, match="largest feasible K is 0"):
        select(scores, method=method, drops=2, protect_first=8, base="all")


@pytest.mark.parametrize("method", CHOOSING)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_drops_asked_are_none_made(method: str, policy: Any) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 8)
    assert select(scores, method=method, drops=0, shortfall=policy).drop == []


@pytest.mark.parametrize("method", CHOOSING)
def test_the_same_question_has_the_same_answer(method: str) -> None:
    for asked, plan in plans(method, cases=10):
        assert select(asked.scores, method=method, **asked.asked()) == plan


@pytest.mark.parametrize("method", CHOOSING)
def test_the_order_of_a_table_s_rows_does_not_matter(method: str) -> None:
    for asked, plan in plans(method, cases=10):
        turned = replace(asked.scores, values=dict(reversed(asked.scores.values.items())))
        assert select(turned, method=method, **asked.asked()) == plan


def rescaled(scores: Scores, change: Callable[[float], float]) -> Scores:
    return replace(scores, values={key: change(value) for key, value in scores.values.items()})


@pytest.mark.parametrize("method", BY_RANK)
def test_only_the_order_of_scores_matters_to_methods_that_rank(method: str) -> None:
    for asked, plan in plans(method):
        bent = rescaled(asked.scores, lambda value: math.exp(3 * value) - 5)
        again = select(bent, method=method, **asked.asked())
        assert (again.drop, again.tune) == (plan.drop, plan.tune)


@pytest.mark.parametrize("method", ["mixed", "interlace-optimal", "interlace-pooled"])
def test_unit_and_origin_of_scores_do_not_matter_to_methods_that_add(method: str) -> None:
    rng = np.random.default_rng(5)
    for n_layers in range(8, 60):
        scores = made_up.table_for(method, rng, n_layers)
        moved = rescaled(scores, lambda value: 7 * value - 3)
        plan, again = (select(s, method=method, ratio=0.25) for s in (scores, moved))
        assert (again.drop, again.tune) == (plan.drop, plan.tune)


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
        asked: Any = {"method": method, "drops": 2, "protect_first": 3, "protect_last": 2}
        plan = select(scores, **asked)
        assert select(replace(scores, values=inside), **asked) == plan


@pytest.mark.parametrize("method", [*LAYER_BY_LAYER, "random", "interlace-tn"])
def test_a_smaller_k_drops_a_part_of_what_a_larger_one_does(method: str) -> None:
    rng = np.random.default_rng(7)
    for n_layers in (8, 28, 36):
        free = list(range(1, n_layers - 1))
        scores = made_up.table_for(method, rng, n_layers, decimals=2, removable=free)
        dropped = [
            select(
                scores, method=method, drops=k, protect_first=1, protect_last=1, shortfall="fewer"
            ).drop
            for k in range(1, n_layers - 1)
        ]
        assert all(set(small) <= set(large) for small, large in pairwise(dropped))


@pytest.mark.parametrize("method", ["interlace", "interlace-oa", "interlace-pooled"])
@pytest.mark.parametrize("policy", ["pairs", "fewer"])
def test_a_smaller_k_takes_the_first_groups_of_a_larger_one(method: str, policy: Any) -> None:
    rng = np.random.default_rng(8)
    for n_layers in (8, 28, 36):
        scores = made_up.table_for(method, rng, n_layers, decimals=2)
        asked: Any = {"method": method, "shortfall": policy, "protect_first": 1}
        for large in range(2, n_layers // 4 + 1):
            groups = select(scores, drops=large, **asked).groups
            assert select(scores, drops=large - 1, **asked).groups == groups[: large - 1]


@pytest.mark.parametrize("n_layers", [3, 8, 28, 36, 100])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4])
def test_dense_ft_drops_none_and_tunes_the_last_k(n_layers: int, ratio: float) -> None:
    drops = math.floor(ratio * n_layers)
    if not drops:
        return
    plan = select(Scores(n_layers, 3, {}, {}), method="dense-ft", ratio=ratio)
    assert (plan.drop, plan.tune) == ([], list(range(n_layers - drops, n_layers)))
    assert (plan.shortfall.wanted, plan.shortfall.missing) == (0, 0)
