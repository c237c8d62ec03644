"""A segment says which layers stand for dropped ones; together they hold all that were dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import made_up

from interlace.methods.registry import METHODS
from interlace.plan.record import Group, Plan, Shortfall
from interlace.plan.segments import Segment, dropped_runs, segments
from interlace.selection.select import select


def plan_of(n: int, drop: list[int], tune: list[int], groups: tuple[Any, ...] = ()) -> Plan:
    made = [
        Group(kind="pair", layers=(*sorted((*d, *t)),), score=None, drop=tuple(d), tune=tuple(t))
        for d, t in groups
    ]
    return Plan(
        method="manual",
        ratio=0.5,
        n_layers=n,
        drop=drop,
        tune=tune,
        freeze=[i for i in range(n) if i not in (*drop, *tune)],
        groups=made,
        protected=[],
        shortfall=Shortfall(policy="pairs", wanted=len(drop), triplets=0, pairs=0, missing=0),
        sources={},
    )


@pytest.mark.parametrize(
    ("drop", "tune", "groups", "expected"),
    [
        ([3], [4], (), [((4,), 3, 4)]),
        ([4], [3], (), [((3,), 3, 4)]),
        ([4], [3, 5], (([4], [3]),), [((3,), 3, 4)]),  # the group's own, not the one behind
        ([5, 6], [4, 7], (([5], [4]), ([6], [7])), [((4, 7), 4, 7)]),
        ([4, 7], [5, 6], (), [((5,), 4, 5), ((6,), 6, 7)]),
        ([3, 5], [4], (), [((4,), 3, 5)]),  # between two runs: it stands for both
        ([2, 5], [3, 4], (), [((3,), 2, 3), ((4,), 4, 5)]),
        ([2, 3, 4], [5, 6, 7], (), [((5, 6, 7), 2, 7)]),
        ([2, 3, 4], [5], (), [((5,), 2, 5)]),
        ([5, 6], [3, 4], (), [((3, 4), 3, 6)]),
        ([3], [4, 5, 6], (), [((4,), 3, 4)]),
        ([3], [6], (), []),
    ],
)
def test_segments_of_every_kind_of_group(
    drop: list[int], tune: list[int], groups: Any, expected: list[tuple[tuple[int, ...], int, int]]
) -> None:
    found = segments(plan_of(9, drop, tune, groups))
    assert found == [Segment(*one) for one in expected]


@given(
    method=st.sampled_from([name for name, rule in METHODS.items() if rule.removes]),
    seed=st.integers(0, 2**16),
    ratio=st.sampled_from([0.1, 0.25, 0.4]),
    tuned=st.sampled_from(["planned", "all"]),
)
def test_segments_are_disjoint_in_order_and_hold_every_dropped_layer(
    method: str, seed: int, ratio: float, tuned: str
) -> None:
    scores = made_up.everything(np.random.default_rng(seed), 24)
    asked = {"method": method, "ratio": ratio, "shortfall": "fewer", "drop": [5, 6, 9]}
    plan = select(scores, **asked, seed=seed, tuned=tuned)
    found = segments(plan)
    layers = [layer for s in found for layer in range(s.first, s.last + 1)]
    assert layers == sorted(set(layers))
    held = set(layers)
    survivors = [layer for s in found for layer in s.survivors]
    assert survivors == sorted(held - set(plan.drop))  # whole: in order, each once, none left out
    assert set(survivors) <= set(plan.tune)  # no frozen layer's work is taken over
    assert all(s.survivors for s in found)
    for run in dropped_runs(plan):
        beside = {run[0] - 1, run[-1] + 1} & set(plan.tune)
        assert set(run) <= held if beside else not set(run) & held
