"""Choices layer by layer: what was measured decides, what was not is never guessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.choice import neighbours
from interlace.scores.table import Scores
from interlace.selection.select import select


def by(criterion: str, values: list[float]) -> Scores:
    return Scores(len(values), 0, {(criterion, i, 1): v for i, v in enumerate(values)}, {})


def without_last_layer(scores: Scores) -> Scores:
    """As in mode `reference`, where no span that ends with the last layer has a score."""
    end = scores.n_layers
    return replace(scores, values={k: v for k, v in scores.values.items() if k[1] + k[2] < end})


def test_shortgpt_drops_the_least_influential_and_shows_the_influence() -> None:
    plan = select(by("cosine", [0.5, 0.9, 0.75, 0.8]), method="shortgpt", drops=2)
    assert plan.drop == [1, 3]
    assert [(g.first, g.score) for g in plan.groups] == [
        (1, pytest.approx(0.1)),
        (3, pytest.approx(0.2)),
    ]


def test_taylor_drops_the_least_important() -> None:
    assert select(by("taylor", [3.0, 0.5, 2.0, 0.7]), method="taylor", drops=2).drop == [1, 3]


@pytest.mark.parametrize("method", ["shortgpt", "taylor", "math-aware", "cka"])
def test_of_equal_layers_the_lower_ones_go(method: str) -> None:
    scores = made_up.everything(np.random.default_rng(0), 8)
    level = replace(scores, values=dict.fromkeys(scores.values, 0.5))
    assert select(level, method=method, drops=3, protect_first=1).drop == [1, 2, 3]


def test_sleb_drops_in_the_order_of_removal() -> None:
    steps = {("sleb", layer, 1): float(step) for step, layer in enumerate([5, 2, 6])}
    plan = select(Scores(8, 0, steps, {}), method="sleb", drops=2)
    assert [group.drop for group in plan.groups] == [(5,), (2,)]


@pytest.mark.parametrize("policy", made_up.POLICIES)
def test_sleb_refuses_more_drops_than_were_measured(policy: Any) -> None:
    steps = {("sleb", layer, 1): float(step) for step, layer in enumerate([5, 2, 6])}
    with pytest.raises(
        InputError, match=r"4 layers are to go, 3 removals .* raise sensitivity\.max_ratio"
    ):
        select(Scores(8, 0, steps, {}), method="sleb", drops=4, shortfall=policy)


def test_sleb_refuses_an_order_measured_with_other_protection() -> None:
    steps = {("sleb", layer, 1): float(step) for step, layer in enumerate([5, 2, 6])}
    with pytest.raises(InputError, match=r"layers \[2\] are protected, but were not when"):
        select(Scores(8, 0, steps, {}), method="sleb", drops=2, protect_first=3)


def test_the_block_that_turns_least_goes() -> None:
    scores = made_up.table_for("angular-block", np.random.default_rng(0), 8)
    turned = dict(scores.values) | {("angular", 4, 3): -1.0}
    plan = select(replace(scores, values=turned), method="angular-block", drops=3)
    assert (plan.drop, plan.tune) == ([4, 5, 6], [2, 3, 7])
    assert [(group.kind, group.score) for group in plan.groups] == [("run", -1.0)]


def test_a_block_that_was_not_measured_is_not_taken() -> None:
    scores = made_up.table_for("angular-block", np.random.default_rng(0), 8)
    for drops in range(1, 7):
        plan = select(without_last_layer(scores), method="angular-block", drops=drops)
        assert len(plan.drop) == drops
        assert 7 not in plan.drop


def test_no_measured_block_is_refused() -> None:
    scores = made_up.table_for("angular-block", np.random.default_rng(0), 8)
    with pytest.raises(
        InputError, match=r"no run of 3 unprotected layers was measured; lower ratio"
    ):
        select(without_last_layer(scores), method="angular-block", drops=3, protect_first=5)


@pytest.mark.parametrize("method", ["shortgpt", "taylor", "math-aware", "mixed", "cka"])
def test_layers_without_score_are_no_candidates(method: str) -> None:
    scores = without_last_layer(made_up.everything(np.random.default_rng(0), 8))
    asked: Any = {"method": method, "protect_first": 1, "protect_last": 0, "drops": 7}
    with pytest.raises(InputError, match=r"only 6 unprotected ones were scored .* K is 6\)"):
        select(scores, **asked)
    assert select(scores, shortfall="fewer", **asked).drop == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "method", ["interlace", "interlace-oa", "interlace-tn", "interlace-optimal"]
)
def test_the_last_layer_is_in_no_group_where_it_has_no_score(method: str) -> None:
    for seed in range(50):
        scores = made_up.table_for(method, np.random.default_rng(seed), 12, decimals=2)
        plan = select(without_last_layer(scores), method=method, drops=3, shortfall="fewer")
        assert 11 not in {i for group in plan.groups for i in group.layers}


@pytest.mark.parametrize(
    ("drop", "tuned", "beside"),
    [
        ([2], [], [3]),
        ([2, 3], [], [4, 5]),
        ([2, 4], [], [3, 5]),
        ([7], [], [6]),
        ([6, 7], [], [4, 5]),
        ([2], [3], [4]),
        ([7], [6], [5]),
        ([0, 1, 2, 3, 4, 5], [], [6, 7]),
        ([], [], []),
    ],
)
def test_each_dropped_layer_has_a_survivor_beside_it(
    drop: list[int], tuned: list[int], beside: list[int]
) -> None:
    assert sorted(neighbours(drop, 8, frozenset(tuned))) == beside
