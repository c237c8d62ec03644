"""A choice by hand is taken as it is, or refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select

SCORES = Scores(8, 2, {}, {})  # it reads none


def by_hand(drop: list[int], tune: list[int], **asked: Any) -> Plan:
    return select(SCORES, method="manual", drop=drop, tune=tune, **asked)


def test_the_layers_given_are_dropped_and_tuned_and_the_rest_is_frozen() -> None:
    plan = by_hand([5, 3], [6, 0])
    assert (plan.drop, plan.tune, plan.freeze) == ([3, 5], [0, 6], [1, 2, 4, 7])


def test_the_ratio_is_the_share_that_goes() -> None:
    plan = by_hand([3, 5], [4], ratio=0.9)
    assert (plan.ratio, plan.shortfall.wanted, plan.shortfall.missing) == (0.25, 2, 0)


def test_nothing_needs_to_be_tuned() -> None:
    plan = by_hand([3], [])
    assert (plan.drop, plan.tune) == ([3], [])


def test_protected_layers_may_be_tuned() -> None:
    assert by_hand([3], [0, 1]).tune == [0, 1]


@pytest.mark.parametrize(
    ("drop", "tune", "complaint"),
    [
        ([], [], r"set select\.drop, e\.g\. \[4, 9\]$"),
        ([], [4], r"set select\.drop, e\.g\. \[4, 9\]$"),
        ([3, 8], [], r"select\.drop = \[3, 8\]: layer 8 is not one of the layers 0 to 7$"),
        ([-1], [], r"select\.drop = \[-1\]: layer -1 is not one of the layers 0 to 7$"),
        ([3], [4, 9], r"select\.tune = \[4, 9\]: layer 9 is not one of the layers 0 to 7$"),
        ([3, 5, 3], [], r"select\.drop = \[3, 5, 3\]: layer 3 is named twice$"),
        ([3], [4, 4], r"select\.tune = \[4, 4\]: layer 4 is named twice$"),
        ([3, 5], [4, 5], r"select\.drop and select\.tune overlap: layer 5 is in both$"),
        ([1, 5], [6], r"select\.drop = \[1, 5\]: layer 1 is protected; set select\.protect_first"),
    ],
)
def test_a_mistake_is_refused_in_one_line(drop: list[int], tune: list[int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        by_hand(drop, tune)
    assert "\n" not in str(caught.value)


def test_a_layer_must_stay() -> None:
    with pytest.raises(InputError, match=r"names every layer; one at least must stay$"):
        by_hand(list(range(8)), [], protect_first=0)


def test_protection_can_be_lifted_as_the_message_says() -> None:
    assert by_hand([1, 5], [6], protect_first=0, protect_last=0).drop == [1, 5]
