"""Choices by chance, in a row and by loss; layers that were not measured are never chosen."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select

SLEB = Scores(8, 0, {("sleb", layer, 1): float(i) for i, layer in enumerate([5, 2, 6])}, {})


def by_chance(seed: int, n_layers: int = 8, drops: int = 2) -> Plan:
    scores = Scores(n_layers, 0, {}, {})
    return select(scores, method="random", drops=drops, seed=seed, protect_first=1)


def without_last_layer(method: str, n_layers: int = 8, seed: int = 0) -> Scores:
    """As in mode `reference`, where no span that ends with the last layer has a score."""
    return made_up.table_for(method, np.random.default_rng(seed), n_layers, mode="reference")


def test_random_choices_depend_on_the_seed_and_a_smaller_k_drops_some_of_a_larger_one_s() -> None:
    assert len({tuple(by_chance(seed, 36, 9).drop) for seed in range(20)}) == 20
    nested = [set(by_chance(0, 36, drops).drop) for drops in range(1, 36)]
    assert all(small < large for small, large in pairwise(nested))


def test_random_drops_fall_evenly_over_the_unprotected_layers_and_tunes_on_all() -> None:
    plans = [by_chance(seed) for seed in range(2000)]
    counts = Counter(i for plan in plans for i in plan.drop)
    assert counts.keys() == set(range(1, 8))
    expected = 2000 * 2 / 7
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())
    assert {i for plan in plans for i in plan.tune} == set(range(8))


def test_shortgpt_shows_the_influence_that_it_ranks_by() -> None:
    scores = made_up.table("cosine", [0.5, 0.9, 0.75, 0.8])
    groups = select(scores, method="shortgpt", drops=2).groups
    assert [(g.first, round(g.score or 0, 9)) for g in groups] == [(1, 0.1), (3, 0.2)]


@pytest.mark.parametrize("policy", made_up.POLICIES)
def test_sleb_refuses_more_drops_than_were_measured(policy: Any) -> None:
    with pytest.raises(InputError, match=r"sleb: 4 .* 3 .* sensitivity\.max_ratio"):
        select(SLEB, method="sleb", drops=4, shortfall=policy)


def test_sleb_refuses_an_order_measured_with_other_protection() -> None:
    with pytest.raises(
        InputError, match=r"layers \[2\] are protected.* select\.protect, protect_first"
    ):
        select(SLEB, method="sleb", drops=2, protect_first=3)


SEARCH = Scores(8, 0, made_up.best_sets([[3], [2, 6], [2, 3, 5]]), {})


def test_search_drops_the_best_set_of_its_size_though_sets_are_not_nested() -> None:
    plans = [select(SEARCH, method="search", drops=drops) for drops in (1, 2, 3)]
    assert [plan.drop for plan in plans] == [[3], [2, 6], [2, 3, 5]]
    assert [group.score for group in plans[2].groups] == [4.0] * 3


@pytest.mark.parametrize("policy", made_up.POLICIES)
def test_search_refuses_more_drops_than_were_measured(policy: Any) -> None:
    with pytest.raises(InputError, match=r"search: 4 .* 3 .* sensitivity\.max_ratio"):
        select(SEARCH, method="search", drops=4, shortfall=policy)


def test_search_refuses_sets_measured_with_other_protection() -> None:
    with pytest.raises(InputError, match=r"search: layers \[2\] are protected.* select\.protect"):
        select(SEARCH, method="search", drops=2, protect_first=3)


def test_a_block_that_was_not_measured_is_not_taken() -> None:
    scores = without_last_layer("angular-block")
    for drops in range(1, 7):
        plan = select(scores, method="angular-block", drops=drops)
        assert len(plan.drop) == drops and 7 not in plan.drop
        assert [(group.kind, len(group.layers)) for group in plan.groups] == [("run", drops)]
    with pytest.raises(InputError, match=r"the longest run .* has 2 \(.* K is 2\)"):
        select(scores, method="angular-block", drops=3, protect_first=5)


@pytest.mark.parametrize("method", ["shortgpt", "math-aware", "mixed", "cka"])
def test_layers_without_score_are_no_candidates(method: str) -> None:
    options: Any = {"method": method, "protect_first": 1, "protect_last": 0, "drops": 7}
    with pytest.raises(InputError, match=r"7 layers cannot be dropped: .* K is 6\)"):
        select(without_last_layer(method), **options)
    plan = select(without_last_layer(method), shortfall="fewer", **options)
    assert plan.drop == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["interlace", "interlace-oa", "interlace-optimal"])
def test_the_last_layer_is_in_no_triplet_or_pair_where_it_has_no_score(method: str) -> None:
    for seed in range(50):
        scores = without_last_layer(method, 12, seed)
        plan = select(scores, method=method, drops=3, shortfall="fewer")
        assert 11 not in {i for group in plan.groups for i in group.layers}


TUNED_LAST: dict[int, float] = dict(enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9]))  # of 8 layers


@pytest.mark.parametrize(
    ("changes", "options", "drop", "tune"),
    [
        ({}, {"drops": 1}, [6], [7]),
        ({}, {"drops": 4}, [0, 2, 4, 6], [1, 3, 5, 7]),
        ({}, {"drops": 1, "protect_last": 1}, [5], [6]),
        ({}, {"drops": 1, "protect_first": 6}, [6], [7]),
        ({5: 0.9}, {"drops": 1}, [5], [6]),  # of equals the lower one goes
        ({5: 0.9}, {"drops": 4, "shortfall": "fewer"}, [1, 3, 5], [2, 4, 6]),
    ],
)
def test_tn_drops_the_layer_before_an_unscored_last_one_which_it_tunes(
    changes: dict[int, float], options: Any, drop: list[int], tune: list[int]
) -> None:
    values = {("cosine", i, 1): value for i, value in (TUNED_LAST | changes).items()}
    options = {"protect_first": 0, "protect_last": 0} | options
    plan = select(Scores(8, 0, values, {}), method="interlace-tn", **options)
    assert (plan.drop, plan.tune) == (drop, tune)


def test_a_pair_shows_the_score_of_the_layer_that_has_one() -> None:
    values = {("cosine", i, 1): value for i, value in TUNED_LAST.items()}
    (group,) = select(Scores(8, 0, values, {}), method="interlace-tn", drops=1).groups
    assert (group.layers, group.layer_scores, group.drop) == ((6, 7), (0.9,), (6,))


@pytest.mark.parametrize("method", ["consecutive", "angular-block"])
def test_a_run_ends_before_a_last_layer_without_a_score(method: str) -> None:
    for seed in range(20):
        plan = select(without_last_layer(method, 8, seed), method=method, drops=3)
        assert 7 not in plan.drop and len(plan.drop) == 3
