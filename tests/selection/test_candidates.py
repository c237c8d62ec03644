"""A method's next best plans are those of a slow search through all of its plans."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.measurements import search, sensitivity
from interlace.methods.registry import METHODS
from interlace.params.choosing import Select
from interlace.plan.record import Decision, Plan
from interlace.scores.table import Scores
from interlace.selection.candidates import Question, best_plans, candidate_plans
from interlace.selection.select import select

N_LAYERS, DROPS = 9, 3


DECISION = {
    "budget": "params", "target": 0.7, "drops": DROPS, "values": {}, "how": "", "reason": "",
}  # fmt: skip


def question(
    method: str, n: int, seed: int = 0, n_layers: int = N_LAYERS, **changes: Any
) -> Question:
    scores = made_up.table_for(method, np.random.default_rng(seed), n_layers)
    options = Select(protect="none", candidates=n, **changes)
    return Question(scores, method, DROPS, options)


def drops(plans: list[Plan]) -> list[list[int]]:
    return [plan.drop for plan in plans]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["shortgpt", "taylor", "cka"])
def test_sets_of_layers_come_in_the_order_of_their_sums(method: str, seed: int) -> None:
    subject = question(method, 12, seed)
    by_layer = subject.scores.of_span(1, *METHODS[method].needs)
    free = [*range(1, N_LAYERS - 1)] if method == "cka" else [*by_layer]
    sign = 1 if method == "taylor" else -1  # shortgpt's influence falls with the cosine
    slow = sorted(combinations(free, DROPS), key=lambda s: sign * sum(by_layer[i] for i in s))
    assert drops(best_plans(subject)) == [[*layers] for layers in slow[:12]]


@pytest.mark.parametrize("seed", range(5))
def test_runs_come_in_the_order_of_their_angles(seed: int) -> None:
    subject = question("angular-block", 5, seed)
    angle = subject.scores.of_span(DROPS, "angular")
    best = sorted(angle, key=lambda first: angle[first])[:5]
    assert drops(best_plans(subject)) == [[*range(first, first + DROPS)] for first in best]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ["interlace-optimal", "interlace"])
def test_triplets_come_in_the_order_of_their_sums_after_the_methods_own(
    method: str, seed: int
) -> None:
    subject = question(method, 6, seed, n_layers=14, shortfall="fewer")
    plans = best_plans(subject)
    sums = [sum(group.score or 0 for group in plan.groups) for plan in plans]
    assert len({tuple(plan.drop) for plan in plans}) == len(plans) == 6
    assert plans[0] == subject.plan() and {plan.shortfall.triplets for plan in plans} == {DROPS}
    protected = [
        select(subject.scores, method=method, drops=DROPS, protect=[layer])
        for layer in plans[0].drop
    ]
    seconds = [sum(group.score or 0 for group in plan.groups) for plan in protected]
    assert sums[1] == max(seconds)
    if method == "interlace-optimal":
        assert sums == sorted(sums, reverse=True)


def test_draws_are_those_of_the_next_seeds() -> None:
    subject = replace(question("random", 3), seed=7)
    expected = [replace(subject, seed=seed).plan() for seed in (7, 8, 9)]
    assert best_plans(subject) == expected
    assert [plan.settings for plan in expected] == [{"seed": 7}, {"seed": 8}, {"seed": 9}]


def searched(*sets: tuple[list[int], str, float]) -> pa.Table:
    rows = [
        {"round": 0, "drop": drop, "rows": rows, "loss": loss, "n_tokens": 9, "accepted": False}
        for drop, rows, loss in sets
    ]
    return pa.Table.from_pylist(rows, schema=search.CANDIDATES)


def test_searched_sets_come_by_their_loss_on_all_rows_before_the_screened() -> None:
    measured = searched(
        *(([2, 3, 4], "all", 1.3), ([2, 3, 4], "screening", 0.9), ([1, 2, 3], "all", 1.1)),
        *(([5, 6, 7], "screening", 0.8), ([4, 5, 6], "screening", 1.0), ([1, 2], "all", 0.5)),
    )
    scores = Scores(N_LAYERS, 0, made_up.best_sets([[], [2], [1, 2], [1, 2, 3]]), {})
    options = Select(candidates=4)
    plans = best_plans(Question(scores, "search", DROPS, options, measured_sets=measured))
    assert drops(plans) == [[1, 2, 3], [2, 3, 4], [5, 6, 7], [4, 5, 6]]
    assert plans[1].tune == [5, 6, 7] and plans[1].groups[0].score == 1.3


def test_sleb_changes_its_last_removal() -> None:
    losses = [{1: 0.2, 4: 0.1, 6: 0.3}, {1: 0.5, 6: 0.2}, {1: 0.7, 2: 0.6, 7: 0.9}]
    rows = [
        {"step": n, "layer": i, "loss": loss, "n_tokens": 9, "removed": loss == min(step.values())}
        for n, step in enumerate(losses)
        for i, loss in step.items()
    ]
    measured = pa.Table.from_pylist(rows, schema=sensitivity.CANDIDATES)
    scores = Scores(N_LAYERS, 0, {("sleb", i, 1): float(n) for n, i in enumerate((4, 6, 2))}, {})
    subject = Question(scores, "sleb", DROPS, Select(candidates=9), measured_sets=measured)
    assert drops(best_plans(subject)) == [[2, 4, 6], [1, 4, 6], [4, 6, 7]]
    with pytest.raises(InputError, match="run `sensitivity`"):
        best_plans(replace(subject, measured_sets=None))


@pytest.mark.parametrize("amount", [0.34, Decision(**DECISION)], ids=["ratio", "budget"])
def test_several_methods_drop_as_many_layers_each(amount: Any) -> None:
    cosines = made_up.table_for("shortgpt", np.random.default_rng(0), N_LAYERS)
    angles = made_up.table_for("angular-block", np.random.default_rng(0), N_LAYERS)
    scores = replace(cosines, values={**cosines.values, **angles.values})
    options = Select(candidates=2, candidate_methods=("angular-block", "shortgpt"), protect="none")
    plans = candidate_plans(Question(scores, "shortgpt", amount, options))
    assert [plan.method for plan in plans] == ["shortgpt"] * 2 + ["angular-block"] * 2
    assert {len(plan.drop) for plan in plans} == {DROPS}


def test_equal_plans_of_two_methods_are_one() -> None:
    subject = question("interlace", 1, candidate_methods=("interlace-optimal",))
    subject = replace(subject, amount=1)
    with pytest.raises(InputError) as error:
        candidate_plans(subject)
    assert str(error.value) == (
        "select.candidates = 1: interlace, interlace-optimal have one plan only of 1 layer, and"
        " nothing to compare it with; raise it, name other methods in select.candidate_methods, or"
        " set it to 0"
    )


def test_a_method_without_a_choice_has_one_plan() -> None:
    options = Select(candidates=3, drop=(2, 4), tune=(1,), protect="none")
    subject = Question(Scores(N_LAYERS, 0, {}, {}), "manual", 0.5, options)
    assert drops(best_plans(subject)) == [[2, 4]]
    with pytest.raises(InputError, match=r"^select\.candidates = 3: manual has one plan only"):
        candidate_plans(subject)


def test_what_stops_another_method_is_named_with_it() -> None:
    subject = question("shortgpt", 1, candidate_methods=("taylor",))
    with pytest.raises(InputError, match=r"^select\.candidate_methods, taylor: scores hold no"):
        candidate_plans(subject)


def test_further_methods_without_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"candidate_methods = \['search'\] counts only with"):
        Select(candidate_methods=("search",))
