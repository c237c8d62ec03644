"""INTERLACE's choice against a slow version written from the paper's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import slow_version

import interlace
from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select

SHORTFALLS = ("pairs", "fewer", "error")


def arrow_table(scores: Scores) -> pa.Table:
    rows = [
        {"criterion": c, "first": f, "span": s, "value": v, "standard_error": None, "n": 1}
        for (c, f, s), v in scores.values.items()
    ]
    return pa.Table.from_pylist(rows)


def table(layer: list[float], pair: list[float], triplet: list[float]) -> pa.Table:
    """An Arrow table from S_1, S_2 and S_3 in layer order."""
    values = {
        ("cosine", first, span): value
        for span, column in enumerate((layer, pair, triplet), start=1)
        for first, value in enumerate(column)
    }
    return arrow_table(Scores(len(layer), 0, values, {}))


def check_against_slow_version(
    scores: Scores, ratio: str, shortfall: Any, first: int, last: int
) -> str:
    drops = slow_version.floor_of_share(ratio, scores.n_layers)
    expected = slow_version.interlace(scores, drops, first, last, shortfall)
    asked = {
        "ratio": float(ratio),
        "shortfall": shortfall,
        "protect_first": first,
        "protect_last": last,
    }
    if expected.ran_out_at is not None:
        with pytest.raises(InputError, match=f"largest feasible K is {expected.ran_out_at}\\b"):
            select(scores, **asked)
        return "ran out"
    plan = select(scores, **asked)
    assert plan.drop == sorted(expected.drop)
    assert plan.tune == sorted(expected.tune)
    assert [group.drop[0] for group in plan.groups] == expected.drop  # the order of decision
    assert [g.anchor for g in plan.groups if g.anchor is not None] == expected.anchors
    assert set(expected.anchors) <= set(plan.freeze)
    said = plan.shortfall
    assert (said.wanted, said.triplets, said.pairs) == (drops, expected.triplets, expected.pairs)
    assert said.missing == drops - len(expected.drop)
    return "pairs" if expected.pairs else "fewer" if said.missing else "triplets"


def test_thousands_of_random_tables_agree_with_the_slow_version() -> None:
    rng = np.random.default_rng(0)
    met: set[str] = set()
    for case in range(3000):
        n_layers = int(rng.integers(3, 101)) if case % 3 else int(rng.integers(3, 14))
        ratio = f"0.{int(rng.integers(1, 50)):02d}"
        if slow_version.floor_of_share(ratio, n_layers) < 1:
            continue
        scores = slow_version.random_scores(rng, n_layers, decimals=1 + case % 3)
        first = int(rng.integers(0, min(4, n_layers - 2)))
        last = int(rng.integers(0, min(3, n_layers - first - 1)))
        met.add(check_against_slow_version(scores, ratio, SHORTFALLS[case % 3], first, last))
    assert met == {"triplets", "pairs", "fewer", "ran out"}


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    n_layers=st.integers(3, 12),
    percent=st.integers(9, 60),
    shortfall=st.sampled_from(SHORTFALLS),
    first=st.integers(0, 3),
    last=st.integers(0, 2),
)
def test_small_tables_full_of_ties_agree_with_the_slow_version(
    data: st.DataObject, n_layers: int, percent: int, shortfall: str, first: int, last: int
) -> None:
    ratio = f"0.{percent:02d}"
    if slow_version.floor_of_share(ratio, n_layers) < 1:
        return
    values = {
        ("cosine", i, span): data.draw(st.integers(0, 3)) / 4
        for span in (1, 2, 3)
        for i in range(n_layers - span + 1)
    }
    check_against_slow_version(Scores(n_layers, 0, values, {}), ratio, shortfall, first, last)


@pytest.mark.parametrize("seed", range(20))
def test_the_public_call_takes_an_arrow_table(seed: int) -> None:
    scores = slow_version.random_scores(np.random.default_rng(seed), 36, decimals=2)
    expected = slow_version.interlace(scores, 9, 0, 0, "pairs")
    plan = interlace.select(arrow_table(scores), method="interlace", ratio=0.25)
    assert (plan.drop, plan.tune) == (sorted(expected.drop), sorted(expected.tune))


@pytest.mark.parametrize(
    ("n_layers", "drops"), [(36, [3, 5, 7, 9]), (28, [2, 4, 5, 7])], ids=["36", "28"]
)
def test_k_is_the_published_one_at_each_ratio(n_layers: int, drops: list[int]) -> None:
    scores = slow_version.random_scores(np.random.default_rng(1), n_layers, decimals=6)
    plans = [select(scores, ratio=ratio) for ratio in (0.10, 0.15, 0.20, 0.25)]
    assert [len(plan.drop) for plan in plans] == drops


def test_k_is_not_lowered_by_binary_fractions() -> None:
    scores = slow_version.random_scores(np.random.default_rng(1), 100, decimals=6)
    assert len(select(scores, method="random", ratio=0.29).drop) == 29  # 0.29 * 100 < 29 in floats


def test_of_a_triplet_the_more_redundant_of_the_first_two_goes() -> None:
    plan = select(table([0.1, 0.9, 1.0], [0.5, 0.5], [0.5]), ratio=0.34)
    assert (plan.drop, plan.tune, plan.freeze) == ([1], [0], [2])


def test_of_two_equally_redundant_layers_the_first_goes() -> None:
    plan = select(table([0.9, 0.9, 1.0], [0.5, 0.5], [0.5]), ratio=0.34)
    assert (plan.drop, plan.tune, plan.freeze) == ([0], [1], [2])


def test_of_equal_triplets_the_lower_one_is_taken() -> None:
    plan = select(table([0.5] * 6, [0.5] * 5, [0.1, 0.7, 0.2, 0.7]), ratio=0.17)
    assert [group.first for group in plan.groups] == [1]


def test_the_third_layer_of_a_triplet_is_its_frozen_anchor() -> None:
    plan = select(table([0.5] * 6, [0.5] * 5, [0.1, 0.7, 0.2, 0.3]), ratio=0.17)
    assert plan.groups[0].anchor == 3
    assert 3 in plan.freeze


def shortfall_table() -> pa.Table:
    """Six layers where the best triplet (2, 3, 4) leaves no other one free; S_2 is best at 0."""
    return table([0.5] * 6, [0.6, 0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.9, 0.3])


def test_pairs_follow_where_triplets_run_out() -> None:
    plan = select(shortfall_table(), ratio=0.34, shortfall="pairs")
    assert [(g.kind, g.first, g.anchor) for g in plan.groups] == [
        ("triplet", 2, 4),
        ("pair", 0, None),
    ]
    assert (plan.drop, plan.tune, plan.freeze) == ([0, 2], [1, 3], [4, 5])


def test_pairs_is_the_default() -> None:
    assert select(shortfall_table(), ratio=0.34).shortfall.policy == "pairs"


def test_fewer_stops_short_and_says_so() -> None:
    plan = select(shortfall_table(), ratio=0.34, shortfall="fewer")
    assert plan.drop == [2]
    assert (plan.shortfall.wanted, plan.shortfall.missing) == (2, 1)


def test_error_names_the_largest_feasible_k() -> None:
    with pytest.raises(InputError, match="largest feasible K is 1"):
        select(shortfall_table(), ratio=0.34, shortfall="error")


def test_pairs_that_run_out_are_an_error() -> None:
    with pytest.raises(InputError, match="triplets and pairs run out at 2"):
        select(shortfall_table(), ratio=0.5, shortfall="pairs")


def test_deepstack_layers_are_protected_unless_set_otherwise() -> None:
    made = table([0.5] * 9, [0.5] * 8, [0.9, 0.8, 0.1, 0.2, 0.1, 0.1, 0.1])
    made = made.replace_schema_metadata({"n_layers": "9", "deepstack_layers": "3"})
    assert [g.first for g in select(made, ratio=0.12).groups] == [3]
    assert select(made, ratio=0.12).protected == [0, 1, 2]
    assert [g.first for g in select(made, ratio=0.12, protect_first=0).groups] == [0]


def plan_cases() -> list[Any]:
    return [
        (method, seed, n_layers)
        for method in ("interlace", "consecutive", "random")
        for seed in range(4)
        for n_layers in (8, 28, 36, 64)
    ]


@pytest.mark.parametrize(("method", "seed", "n_layers"), plan_cases())
def test_every_layer_has_one_role_and_protected_ones_stay(
    method: str, seed: int, n_layers: int
) -> None:
    scores = slow_version.random_scores(np.random.default_rng(seed), n_layers, decimals=2)
    plan: Plan = select(
        scores, method=method, ratio=0.25, protect_first=1 + seed % 3, protect_last=seed % 2
    )
    assert sorted(plan.drop + plan.tune + plan.freeze) == list(range(n_layers))
    assert plan.protected == [
        i for i in range(n_layers) if i < 1 + seed % 3 or i >= n_layers - seed % 2
    ]
    assert not set(plan.drop) & set(plan.protected)
    assert len(plan.tune) == len(plan.drop) == n_layers // 4
