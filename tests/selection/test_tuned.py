"""The survivors that are tuned can be chosen apart from the layers that are dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.selection.select import select
from interlace.selection.tuned import spaced_evenly


def plan_of(method: str, tuned: Any, seed: int = 0) -> Plan:
    scores = made_up.everything(np.random.default_rng(seed), 24)
    options: Any = {"shortfall": "fewer", "tuned": tuned, "seed": seed}
    return select(scores, method=method, drop=[4, 9], tune=[5, 8], **options)


@given(
    method=st.sampled_from(list(METHODS)),
    tuned=st.sampled_from(["spaced", "all", "none"]),
    seed=st.integers(0, 2**16),
)
def test_the_tuned_layers_change_nothing_that_is_dropped(
    method: str, tuned: str, seed: int
) -> None:
    planned, other = plan_of(method, "planned", seed), plan_of(method, tuned, seed)
    assert (other.drop, other.tuned) == (planned.drop, tuned)
    counts = {"spaced": len(planned.tune), "all": len(planned.keep), "none": 0}
    assert len(other.tune) == counts[tuned]
    assert all(set(group.tune) <= set(other.tune) for group in other.groups)


@given(count=st.integers(1, 40), total=st.integers(1, 40))
def test_spaced_layers_divide_the_survivors_evenly(count: int, total: int) -> None:
    layers = spaced_evenly(list(range(total)), count)
    assert len(layers) == len(set(layers)) == min(count, total)
    assert layers == sorted(layers)
    gaps = np.diff(layers)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert abs(layers[0] - (total - 1 - layers[-1])) <= 1


def test_anchors_are_the_groups_own() -> None:
    plan = plan_of("interlace", "anchors")
    assert plan.tune == sorted({g.anchor for g in plan.groups if g.anchor is not None})
    with pytest.raises(InputError, match=r"select\.tuned = anchors"):
        plan_of("shortgpt", "anchors")
