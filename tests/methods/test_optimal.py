"""The best set of groups is the best, and never falls short of what fits."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from methods import made_up, slow_answers, slow_optimal

from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select


def random_table(n_layers: int) -> Scores:
    return made_up.table_for("interlace-optimal", np.random.default_rng(n_layers), n_layers)


def best(scores: Scores, **options: Any) -> Plan:
    return select(scores, method="interlace-optimal", **options)


def test_greedy_takes_the_best_triplet_and_the_optimum_the_best_two() -> None:
    scores = made_up.cosine_table([0.5] * 6, [0.5] * 5, [0.5, 0.1, 0.6, 0.5])
    greedy = select(scores, drops=2, shortfall="fewer")
    assert [group.first for group in greedy.groups] == [2]
    assert [group.first for group in best(scores, drops=2).groups] == [0, 3]


@pytest.mark.parametrize("n_layers", [24, 28, 36, 64, 100])
def test_the_sum_is_the_greatest_at_every_k(n_layers: int) -> None:
    scores = random_table(n_layers)
    greatest = slow_optimal.greatest_sums(slow_answers.of_cosine(scores, 3), n_layers)
    for drops in range(1, n_layers // 3 + 1, 3):
        groups = best(scores, drops=drops).groups
        values = [scores.values["cosine", group.first, group.span] for group in groups]
        assert sum(map(Fraction, values), Fraction(0)) == greatest[drops]


@pytest.mark.parametrize("policy", made_up.POLICIES)
@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 1), (3, 0)])
def test_it_never_falls_short_while_three_times_k_layers_are_free(
    policy: Any, first: int, last: int
) -> None:
    for n_layers in (6, 13, 28, 36, 64, 100):
        drops = (n_layers - first - last) // 3
        options = {"shortfall": policy, "protect_first": first, "protect_last": last}
        shortfall = best(random_table(n_layers), drops=drops, **options).shortfall
        assert (shortfall.triplets, shortfall.pairs, shortfall.missing) == (drops, 0, 0)


@pytest.mark.parametrize("n_layers", [7, 12, 26, 36])
def test_beyond_that_as_many_triplets_stay_as_leave_room_for_pairs(n_layers: int) -> None:
    scores = random_table(n_layers)
    for drops in range(n_layers // 3 + 1, n_layers // 2 + 1):
        pairs = best(scores, drops=drops).shortfall
        assert (pairs.triplets, pairs.pairs) == (n_layers - 2 * drops, 3 * drops - n_layers)
        fewer = best(scores, drops=drops, shortfall="fewer").shortfall
        assert (fewer.triplets, fewer.pairs) == (n_layers // 3, 0)
