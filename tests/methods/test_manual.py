"""A choice by hand is taken as it is, or refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from interlace.errors import InputError
from interlace.plan.record import Plan
from interlace.scores.table import Scores
from interlace.selection.select import select


def by_hand(drop: list[int], tune: list[int], **options: Any) -> Plan:
    return select(Scores(8, 2, {}, {}), method="manual", drop=drop, tune=tune, **options)


def test_the_named_layers_are_dropped_and_tuned_and_the_rest_is_frozen() -> None:
    plan = by_hand([5, 3], [6, 0], ratio=0.9)  # a protected layer may be tuned
    assert (plan.drop, plan.tune, plan.freeze) == ([3, 5], [0, 6], [1, 2, 4, 7])
    assert (plan.ratio, plan.shortfall.wanted, plan.shortfall.missing) == (0.25, 2, 0)
    assert by_hand([3], []).tune == []
    assert len(by_hand([3, 5], [], tuned="spaced").tune) == 2


@pytest.mark.parametrize(
    ("drop", "tune", "complaint"),
    [
        ([], [4], r"set select\.drop, e\.g\. \[4, 9\]"),
        ([3, 8], [], r"select\.drop = \[3, 8\]: layer 8 .* 0 to 7"),
        ([-1], [], r"select\.drop = \[-1\]: layer -1 .* 0 to 7"),
        ([3], [4, 9], r"select\.tune = \[4, 9\]: layer 9 .* 0 to 7"),
        ([3, 5, 3], [], r"select\.drop = \[3, 5, 3\]: layer 3"),
        ([3], [4, 4], r"select\.tune = \[4, 4\]: layer 4"),
        ([3, 5], [4, 5], r"select\.drop and select\.tune overlap: layer 5"),
        ([1, 5], [6], r"select\.drop = \[1, 5\]: layer 1 is protected; .* select\.protect to none"),
        ([*range(8)], [], r"select\.drop = .* one at least must stay"),
    ],
)
def test_a_mistake_is_refused_in_one_line(drop: list[int], tune: list[int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        by_hand(drop, tune)
    assert "\n" not in str(caught.value)


def test_protection_can_be_lifted_as_the_message_says() -> None:
    assert by_hand([1, 5], [6], protect="none").drop == [1, 5]
