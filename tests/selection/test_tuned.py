"""Which survivors are tuned can be chosen apart from what is dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import made_up

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Plan
from interlace.report.facts.decision import asked
from interlace.selection.select import select
from interlace.selection.tuned import spaced_evenly

CHOICES = ["planned", "spaced", "anchors", "all", "none"]


def plan_of(method: str, tuned: str, seed: int = 0, n_layers: int = 24) -> Plan:
    scores = made_up.everything(np.random.default_rng(seed), n_layers)
    given_layers = {"drop": [4, 9], "tune": [5, 8]}
    return select(
        scores, method=method, ratio=0.25, shortfall="fewer", tuned=tuned, seed=seed, **given_layers
    )


@given(
    method=st.sampled_from(list(METHODS)),
    tuned=st.sampled_from(["spaced", "all", "none"]),
    seed=st.integers(0, 2**16),
)
def test_what_is_tuned_changes_nothing_that_is_dropped(method: str, tuned: str, seed: int) -> None:
    planned, other = plan_of(method, "planned", seed), plan_of(method, tuned, seed)
    assert other.drop == planned.drop
    many = {"spaced": len(planned.tune), "all": len(planned.keep), "none": 0}
    assert len(other.tune) == many[tuned]
    assert other.tuned == tuned
    for group in other.groups:
        assert set(group.tune) <= set(other.tune)


@given(many=st.integers(1, 40), total=st.integers(1, 40))
def test_spaced_layers_divide_the_survivors_spaced_evenly(many: int, total: int) -> None:
    chosen = spaced_evenly(list(range(total)), many)
    assert len(set(chosen)) == min(many, total)
    assert chosen == sorted(chosen)
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert abs(chosen[0] - (total - 1 - chosen[-1])) <= 1


def test_anchors_are_the_groups_own() -> None:
    plan = plan_of("interlace", "anchors")
    assert plan.tune == sorted({g.anchor for g in plan.groups if g.anchor is not None})


def test_the_anchors_of_a_method_without_any_are_refused() -> None:
    with pytest.raises(InputError, match=r"select\.tuned = anchors"):
        plan_of("shortgpt", "anchors")


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match=r"tuned = 'some'.*'planned', 'spaced'"):
        plan_of("interlace", "some")


@pytest.mark.parametrize("tuned", CHOICES)
def test_a_plan_says_what_it_was_asked(tuned: str) -> None:
    said = asked(plan_of("interlace", tuned))
    assert ("tuning" in said) is (tuned != "planned")
