"""Domain-aware choices, as published (arXiv 2603.20275)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from methods import made_up

from interlace.errors import InputError
from interlace.methods.domain import standardised
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select

OF_THE_PAPER = ["math-aware", "nonmath-aware", "mixed", "cka", "interlace-pooled"]


def table(math_scores: list[float], nonmath_scores: list[float]) -> Scores:
    columns = {"cosine/math": math_scores, "cosine/nonmath": nonmath_scores}
    values = {(name, i, 1): v for name, column in columns.items() for i, v in enumerate(column)}
    return Scores(len(math_scores), 0, values, {})


def random_table(seed: int, n_layers: int) -> Scores:
    return made_up.table_for("mixed", np.random.default_rng(seed), n_layers, decimals=3)


def decided(scores: Scores, **asked: Any) -> Plan:
    return select(scores, shortfall="fewer", **asked)


@pytest.mark.parametrize("method", OF_THE_PAPER)
@pytest.mark.parametrize(("n_layers", "published"), [(28, [2, 6, 10]), (36, [3, 8, 13])])
def test_k_is_the_published_share_of_the_prunable_layers(
    method: str, n_layers: int, published: list[int]
) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), n_layers)
    plans = [decided(scores, method=method, ratio=ratio) for ratio in (0.10, 0.25, 0.40)]
    assert [plan.shortfall.wanted for plan in plans] == published
    assert {(plan.base, plan.base_layers) for plan in plans} == {("prunable", n_layers - 2)}


@pytest.mark.parametrize("method", OF_THE_PAPER)
def test_the_first_and_the_last_layer_are_protected(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 28)
    assert decided(scores, method=method, ratio=0.25).protected == [0, 27]


@pytest.mark.parametrize("method", OF_THE_PAPER)
def test_protection_and_base_can_be_set_otherwise(method: str) -> None:
    scores = made_up.table_for(method, np.random.default_rng(0), 28)
    plan = decided(scores, method=method, ratio=0.25, protect_first=0, protect_last=4, base="all")
    assert plan.protected == [24, 25, 26, 27]
    assert (plan.base_layers, plan.shortfall.wanted) == (28, 7)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize(("alpha", "alone"), [(0.0, "math-aware"), (1.0, "nonmath-aware")])
def test_mixed_with_all_weight_on_a_domain_is_that_domain_s_choice(
    seed: int, alpha: float, alone: str
) -> None:
    scores = random_table(seed, 10 + seed)
    mixed = decided(scores, method="mixed", ratio=0.4, alpha=alpha)
    single = decided(scores, method=alone, ratio=0.4)
    assert (mixed.drop, mixed.tune, mixed.groups) == (single.drop, single.tune, single.groups)


@pytest.mark.parametrize(("alpha", "criterion"), [(0.0, "cosine/math"), (1.0, "cosine/nonmath")])
def test_a_domain_without_weight_need_not_be_measured(alpha: float, criterion: str) -> None:
    scores = random_table(0, 12)
    held = {key: value for key, value in scores.values.items() if key[0] == criterion}
    only = decided(replace(scores, values=held), method="mixed", ratio=0.4, alpha=alpha)
    assert only == decided(scores, method="mixed", ratio=0.4, alpha=alpha)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"select\.alpha = \S+: must lie in \[0, 1\]$"):
        select(random_table(0, 12), method="mixed", ratio=0.25, alpha=alpha)


def test_alpha_is_0_7_unless_set_and_told_by_the_plan() -> None:
    scores = random_table(0, 36)
    plan = decided(scores, method="mixed", ratio=0.25)
    assert plan.settings == {"alpha": 0.7}
    assert plan == decided(scores, method="mixed", ratio=0.25, alpha=0.7)


def test_alpha_weighs_non_math() -> None:
    scores = table([0, 0.9, 0.1, 0.1, 0.2, 0], [0, 0.1, 0.2, 0.9, 0.1, 0])
    assert decided(scores, method="mixed", drops=1, alpha=0.7).drop == [3]
    assert decided(scores, method="mixed", drops=1, alpha=0.3).drop == [1]


def test_each_domain_is_standardised_before_they_are_mixed() -> None:
    narrow = [0, 0.500, 0.501, 0.503, 0]  # z-scores as wide as those of the other domain
    wide = [0, 0.9, 0.5, 0.1, 0]
    assert decided(table(wide, narrow), method="mixed", drops=1, alpha=0.7).drop == [3]


def test_layers_alike_in_both_domains_go_from_the_lowest_on() -> None:
    plan = decided(table([0.5] * 3 + [0.7] * 5, [0.5] * 3 + [0.7] * 5), method="mixed", drops=3)
    assert plan.drop == [3, 4, 5]


def test_a_domain_that_tells_no_layers_apart_has_no_say() -> None:
    scores = random_table(3, 20)
    level = {k: 0.1 if k[0] == "cosine/nonmath" else v for k, v in scores.values.items()}
    mixed = decided(replace(scores, values=level), method="mixed", ratio=0.4)
    assert mixed.drop == decided(scores, method="math-aware", ratio=0.4).drop


def test_z_scores_have_mean_0_and_deviation_1() -> None:
    values = standardised({3: 0.1, 4: 0.5, 7: 0.2})
    assert list(values) == [3, 4, 7]
    assert sum(values.values()) == pytest.approx(0)
    assert sum(v * v for v in values.values()) / 3 == pytest.approx(1)


@pytest.mark.parametrize("values", [{}, {4: 0.3}, {1: 0.1, 2: 0.1, 3: 0.1}, {1: 0.0, 2: 1e-200}])
def test_z_scores_of_layers_alike_are_0(values: dict[int, float]) -> None:
    assert standardised(values) == dict.fromkeys(values, 0.0)


@pytest.mark.parametrize(("n_layers", "fitting", "wanted"), [(28, 8, 10), (36, 11, 13)])
def test_pooled_triplets_run_out_at_40_percent(n_layers: int, fitting: int, wanted: int) -> None:
    level = Scores(n_layers, 0, {("pooled", i, 1): 0.5 for i in range(n_layers)}, {})
    said = decided(level, method="interlace-pooled", ratio=0.4).shortfall
    assert (said.wanted, said.triplets, said.missing) == (wanted, fitting, wanted - fitting)
    with pytest.raises(InputError, match=f"triplets run out at {fitting}; the largest feasible K"):
        select(level, method="interlace-pooled", ratio=0.4, shortfall="error")


@pytest.mark.parametrize("seed", range(50))
def test_no_pooled_scores_fit_more_triplets_at_40_percent(seed: int) -> None:
    for n_layers, fitting in ((28, 8), (36, 11)):
        scores = made_up.table_for("interlace-pooled", np.random.default_rng(seed), n_layers)
        said = decided(scores, method="interlace-pooled", ratio=0.4).shortfall
        assert 0 < said.triplets <= fitting


def test_pooled_pairs_follow_where_triplets_run_out() -> None:
    values = [0.0, 0.1, 0.2, 0.9, 0.8, 0.3, 0.0]
    scores = Scores(7, 0, {("pooled", i, 1): value for i, value in enumerate(values)}, {})
    plan = select(scores, method="interlace-pooled", drops=2)
    assert [(g.kind, g.first, g.drop) for g in plan.groups] == [
        ("triplet", 3, (3,)),
        ("pair", 1, (2,)),
    ]
    assert [g.score for g in plan.groups] == pytest.approx([0.85, 0.15])


def test_cka_marks_the_layer_it_stands_at() -> None:
    values = {("cka", i, 1): value for i, value in enumerate([0.9, 0.2, 0.3, 0.8, 0.1, 0.9])}
    assert decided(Scores(6, 0, values, {}), method="cka", drops=1).drop == [3]


def test_the_published_protection_is_theirs_alone() -> None:
    ends = {name: (rule.protect_first, rule.protect_last) for name, rule in METHODS.items()}
    assert {name for name, rule in ends.items() if rule == (1, 1)} == {*OF_THE_PAPER, "sleb"}
    assert set(ends.values()) == {(0, 0), (1, 1)}
    assert {name for name, rule in METHODS.items() if rule.base == "prunable"} == {*OF_THE_PAPER}
