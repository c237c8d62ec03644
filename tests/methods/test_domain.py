"""Domain-aware choices, as published (arXiv 2603.20275)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from methods import made_up

from interlace.methods.domain import standardised
from interlace.methods.registry import METHODS
from interlace.selection.select import select

OF_THE_PAPER = {"math-aware", "nonmath-aware", "mixed", "cka", "interlace-pooled"}


def test_the_published_protection_and_base_are_theirs_alone() -> None:
    ends = {name: (rule.protect_first, rule.protect_last) for name, rule in METHODS.items()}
    assert {name for name, rule in ends.items() if rule == (1, 1)} == OF_THE_PAPER | {
        "sleb",
        "search",
    }
    assert set(ends.values()) == {(0, 0), (1, 1)}
    assert {name for name, rule in METHODS.items() if rule.base == "prunable"} == OF_THE_PAPER


@pytest.mark.parametrize(("alpha", "criterion"), [(0.0, "cosine/math"), (1.0, "cosine/nonmath")])
def test_a_domain_without_weight_need_not_be_measured(alpha: float, criterion: str) -> None:
    scores = made_up.table_for("mixed", np.random.default_rng(0), 12)
    values = {key: value for key, value in scores.values.items() if key[0] == criterion}
    single = select(replace(scores, values=values), method="mixed", ratio=0.4, alpha=alpha)
    assert single == select(scores, method="mixed", ratio=0.4, alpha=alpha)


@pytest.mark.parametrize("values", [{}, {4: 0.3}, {1: 0.1, 2: 0.1, 3: 0.1}, {1: 0.0, 2: 1e-200}])
def test_z_scores_of_layers_alike_are_0(values: dict[int, float]) -> None:
    assert standardised(values) == dict.fromkeys(values, 0.0)
