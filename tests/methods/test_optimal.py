"""The best set of groups is the best, and never falls short of what fits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from methods import made_up, slow_answers, slow_optimal
from methods.slow_answers import Asked

from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select


def total(scores: Scores, plan: Plan) -> Fraction:
    values = [scores.values["cosine", group.first, group.span] for group in plan.groups]
    return sum(map(Fraction, values), Fraction(0))


def best(scores: Scores, **asked: Any) -> Plan:
    return select(scores, method="interlace-optimal", **asked)


def table(layer: list[float], pair: list[float], triplet: list[float]) -> Scores:
    values = {
        ("cosine", first, span): value
        for span, column in enumerate((layer, pair, triplet), start=1)
        for first, value in enumerate(column)
    }
    return Scores(len(layer), 0, values, {})


def test_greedy_takes_the_best_triplet_and_the_optimum_the_best_two() -> None:
    scores = table([0.5] * 6, [0.5] * 5, [0.5, 0.1, 0.6, 0.5])
    greedy = select(scores, drops=2, shortfall="fewer")
    assert [group.first for group in greedy.groups] == [2]
    assert [group.first for group in best(scores, drops=2).groups] == [0, 3]


@pytest.mark.parametrize("policy", made_up.POLICIES)
@pytest.mark.parametrize("n_layers", range(3, 13))
def test_tables_of_equal_sums_agree_with_the_search_of_every_set(
    n_layers: int, policy: Any
) -> None:
    rng = np.random.default_rng(n_layers)
    for drops in range(1, n_layers // 2 + 1):
        for _ in range(8):
            scores = made_up.table_for("interlace-optimal", rng, n_layers)
            quarters = {key: round(4 * value) / 4 for key, value in scores.values.items()}
            scores = Scores(n_layers, 0, quarters, {})
            asked = Asked(drops, list(range(n_layers)), policy)
            expected = slow_answers.interlace_optimal(scores, asked)
            if expected.refused_at is not None:
                with pytest.raises(
                    InputError, match=f"largest feasible K is {expected.refused_at}"
                ):
                    best(scores, drops=drops, shortfall=policy)
                continue
            plan = best(scores, drops=drops, shortfall=policy)
            assert (plan.drop, plan.tune) == (sorted(expected.drop), sorted(expected.tune))


@pytest.mark.parametrize("n_layers", [24, 28, 36, 64, 100])
def test_the_sum_is_the_greatest_at_every_k(n_layers: int) -> None:
    rng = np.random.default_rng(n_layers)
    scores = made_up.table_for("interlace-optimal", rng, n_layers)
    greatest = slow_optimal.greatest_sums(slow_answers.of_cosine(scores, 3), n_layers)
    for drops in range(1, n_layers // 3 + 1, 3):
        assert total(scores, best(scores, drops=drops)) == greatest[drops]


def test_the_sum_is_at_least_that_of_greedy() -> None:
    rng = np.random.default_rng(0)
    better = 0
    for case in range(150):
        n_layers = int(rng.integers(12, 101))
        scores = made_up.table_for("interlace-optimal", rng, n_layers, decimals=1 + case % 9)
        drops = n_layers // 4
        greedy = select(scores, drops=drops, shortfall="fewer", protect_first=case % 3)
        among = best(scores, drops=len(greedy.drop), protect_first=case % 3)
        assert total(scores, among) >= total(scores, greedy)
        better += total(scores, among) > total(scores, greedy)
    assert better > 75  # of 150


@pytest.mark.parametrize("policy", made_up.POLICIES)
def test_it_never_falls_short_while_three_times_k_layers_are_free(policy: Any) -> None:
    rng = np.random.default_rng(1)
    for n_layers in (6, 13, 28, 36, 64, 100):
        scores = made_up.table_for("interlace-optimal", rng, n_layers)
        for first, last in ((0, 0), (1, 1), (3, 0)):
            drops = (n_layers - first - last) // 3
            if not drops:
                continue
            plan = best(
                scores, drops=drops, shortfall=policy, protect_first=first, protect_last=last
            )
            assert plan.shortfall.triplets == drops
            assert (plan.shortfall.pairs, plan.shortfall.missing) == (0, 0)


@pytest.mark.parametrize("n_layers", [7, 12, 26, 36])
def test_beyond_that_as_many_triplets_stay_as_leave_room_for_pairs(n_layers: int) -> None:
    scores = made_up.table_for("interlace-optimal", np.random.default_rng(2), n_layers)
    for drops in range(n_layers // 3 + 1, n_layers // 2 + 1):
        said = best(scores, drops=drops).shortfall
        assert (said.triplets, said.pairs) == (n_layers - 2 * drops, 3 * drops - n_layers)


def test_fewer_takes_as_many_triplets_as_fit_and_no_pair() -> None:
    scores = made_up.table_for("interlace-optimal", np.random.default_rng(3), 26)
    said = best(scores, drops=10, shortfall="fewer").shortfall
    assert (said.triplets, said.pairs, said.missing) == (8, 0, 2)


@pytest.mark.parametrize(("policy", "largest"), [("error", 8), ("pairs", 13)])
def test_what_does_not_fit_is_refused_with_the_largest_k_that_does(
    policy: Any, largest: int
) -> None:
    scores = made_up.table_for("interlace-optimal", np.random.default_rng(4), 26)
    with pytest.raises(InputError, match=f"largest feasible K is {largest}:"):
        best(scores, drops=14, shortfall=policy)
    assert len(best(scores, drops=largest, shortfall=policy).drop) == largest


def test_roles_within_a_triplet_are_interlaces() -> None:
    plan = best(table([0.1, 0.9, 1.0, 0.4, 0.4, 1.0], [0.5] * 5, [0.5] * 4), drops=2)
    assert (plan.drop, plan.tune, plan.freeze) == ([1, 3], [0, 4], [2, 5])
