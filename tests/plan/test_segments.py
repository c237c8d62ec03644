"""Segments say which layers stand for dropped ones, and hold all that can be repaired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import made_up
from plans import make_plan

from interlace.methods.registry import METHODS
from interlace.plan.record import Group, Plan
from interlace.plan.segments import Segment, dropped_runs, segments
from interlace.selection.select import select


def plan_of(drop: list[int], tune: list[int], pairs: tuple[tuple[int, int], ...]) -> Plan:
    groups = [
        Group(kind="pair", layers=tuple(sorted((d, t))), score=None, drop=(d,), tune=(t,))
        for d, t in pairs
    ]
    return make_plan(drop, tune, n_layers=9).model_copy(update={"groups": groups})


@pytest.mark.parametrize(
    ("drop", "tune", "pairs", "expected"),
    [
        ([3], [4], (), [((4,), 3, 4)]),
        ([4], [3], (), [((3,), 3, 4)]),
        ([4], [3, 5], (), [((5,), 4, 5)]),
        ([4], [3, 5], ((4, 3),), [((3,), 3, 4)]),  # the group's own, not the one after it
        ([5, 6], [4, 7], ((5, 4), (6, 7)), [((4, 7), 4, 7)]),
        ([4, 7], [5, 6], (), [((5,), 4, 5), ((6,), 6, 7)]),
        ([3, 5], [4], (), [((4,), 3, 5)]),  # between two runs: it stands for both
        ([2, 5], [3, 4], (), [((3,), 2, 3), ((4,), 4, 5)]),
        ([2, 3, 5], [1, 4], ((2, 1), (3, 4)), [((1, 4), 1, 5)]),
        ([2, 3, 4], [5, 6, 7], (), [((5, 6, 7), 2, 7)]),
        ([2, 3, 4], [5], (), [((5,), 2, 5)]),
        ([5, 6], [3, 4], (), [((3, 4), 3, 6)]),
        ([3], [4, 5, 6], (), [((4,), 3, 4)]),
        ([3], [6], (), []),
    ],
)
def test_segments_of_every_kind_of_group(
    drop: list[int], tune: list[int], pairs: Any, expected: list[tuple[tuple[int, ...], int, int]]
) -> None:
    assert segments(plan_of(drop, tune, pairs)) == [Segment(*fields) for fields in expected]


@given(
    method=st.sampled_from([name for name, rule in METHODS.items() if rule.removes]),
    seed=st.integers(0, 2**16),
    ratio=st.sampled_from([0.1, 0.25, 0.4]),
    tuned=st.sampled_from(["planned", "all"]),
)
def test_segments_are_disjoint_in_order_and_hold_every_run_beside_a_tuned_layer(
    method: str, seed: int, ratio: float, tuned: Any
) -> None:
    scores = made_up.everything(np.random.default_rng(seed), 24)
    options: Any = {"shortfall": "fewer", "drop": [5, 6, 9], "seed": seed, "tuned": tuned}
    plan = select(scores, method=method, ratio=ratio, **options)
    layers = [layer for s in segments(plan) for layer in range(s.first, s.last + 1)]
    assert layers == sorted(set(layers))
    survivors = [layer for s in segments(plan) for layer in s.survivors]
    assert survivors == sorted(set(layers) - set(plan.drop))
    assert set(survivors) <= set(plan.tune)  # no frozen layer's work is taken over
    assert all(s.survivors for s in segments(plan))
    for run in dropped_runs(plan):
        beside = {run[0] - 1, run[-1] + 1} & set(plan.tune)
        assert set(run) <= set(layers) if beside else not set(run) & set(layers)
