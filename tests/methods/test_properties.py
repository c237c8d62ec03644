"""Properties of all methods, whatever the scores."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.selection.select import select

CHOOSING = sorted(METHODS.keys() - {"manual"})
DROPPING = sorted(name for name in CHOOSING if METHODS[name].removes)
IN_GROUPS = ["interlace", "interlace-oa", "interlace-optimal", "interlace-pooled", "interlace-tn"]


@functools.cache
def plans(method: str, cases: int = 60) -> list[tuple[made_up.Question, Plan]]:
    """Random requests, and the choices of those that can be met."""
    rng = np.random.default_rng(len(method))
    answers = []
    for case in range(cases):
        question = made_up.question(method, rng, case, longest=60)
        try:
            answers.append((question, question.plan()))
        except InputError:
            continue
    assert len(answers) > cases / 4
    return answers


@pytest.mark.parametrize("method", CHOOSING)
def test_protected_layers_are_those_that_the_request_names(method: str) -> None:
    for question, plan in plans(method):
        assert plan.protected == sorted({*range(plan.n_layers)} - {*question.free})


@pytest.mark.parametrize("method", DROPPING)
def test_k_layers_go_and_as_many_are_tuned_or_the_plan_says_how_many_are_missing(
    method: str,
) -> None:
    for question, plan in plans(method):
        shortfall = plan.shortfall
        assert (shortfall.wanted, shortfall.policy) == (question.drops, question.options.shortfall)
        assert shortfall.missing == question.drops - len(plan.drop)
        assert shortfall.missing == 0 or shortfall.policy == "fewer"
        assert len(plan.tune) == min(len(plan.drop), plan.n_layers - len(plan.drop))
        assert sorted(i for group in plan.groups for i in group.drop) == plan.drop


@pytest.mark.parametrize("method", IN_GROUPS)
def test_groups_are_unprotected_neighbours_that_share_no_layer(method: str) -> None:
    (criterion,) = METHODS[method].needs
    for question, plan in plans(method):
        values = question.scores.values
        layers = [i for group in plan.groups for i in group.layers]
        assert len(layers) == len(set(layers)) and set(layers) <= set(question.free)
        for group in plan.groups:
            assert group.layers == tuple(range(group.first, group.first + group.span))
            assert {*group.drop, *group.tune} == set(group.layers[:2])
            assert group.layer_scores == tuple(values[criterion, i, 1] for i in group.layers[:2])
            assert group.anchor == (group.first + 2 if group.kind == "triplet" else None)
        kinds = Counter(group.kind for group in plan.groups)
        assert (plan.shortfall.triplets, plan.shortfall.pairs) == (kinds["triplet"], kinds["pair"])


@pytest.mark.parametrize("method", CHOOSING)
def test_nothing_goes_where_all_layers_are_protected_or_k_is_0(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 8)
    choose = functools.partial(select, scores, method=method, base="all")
    assert choose(drops=2, protect_first=8, shortfall="fewer").drop == []
    assert all(choose(drops=0, shortfall=policy).drop == [] for policy in made_up.POLICIES)
    if METHODS[method].removes:
        with pytest.raises(InputError, match="largest feasible K is 0"):
            choose(drops=2, protect_first=8)


@pytest.mark.parametrize("method", CHOOSING)
def test_the_same_request_has_the_same_answer_in_any_order_of_rows(method: str) -> None:
    for question, plan in plans(method)[:10]:
        values = dict(reversed(question.scores.values.items()))
        assert question.plan(replace(question.scores, values=values)) == plan
