"""INTERLACE's choice against a slow version written from the paper's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import made_up, slow_answers
from pyarrow import parquet

import interlace
from interlace.errors import InputError
from interlace.scores.table import Scores
from interlace.selection.select import select


def random_scores(n_layers: int) -> Scores:
    return made_up.table_for("interlace", np.random.default_rng(1), n_layers)


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    n_layers=st.integers(3, 12),
    percent=st.integers(9, 60),
    policy=st.sampled_from(made_up.POLICIES),
    first=st.integers(0, 3),
    last=st.integers(0, 2),
)
def test_small_tables_full_of_ties_agree_with_the_slow_version(
    data: st.DataObject, n_layers: int, percent: int, policy: str, first: int, last: int
) -> None:
    drops = percent * n_layers // 100
    if drops < 1:
        return
    values = {
        ("cosine", i, span): data.draw(st.integers(0, 3)) / 4
        for span in (1, 2, 3)
        for i in range(n_layers - span + 1)
    }
    scores = Scores(n_layers, 0, values, {})
    asked = slow_answers.Asked(drops, list(range(first, n_layers - last)), policy)
    expected = slow_answers.interlace(scores, asked)
    options = {"shortfall": policy, "protect_first": first, "protect_last": last}
    if expected.refused_at is not None:
        with pytest.raises(InputError, match=f"largest feasible K is {expected.refused_at}\\b"):
            select(scores, ratio=percent / 100, **options)
        return
    plan = select(scores, ratio=percent / 100, **options)
    assert (plan.drop, plan.tune) == (sorted(expected.drop), sorted(expected.tune))
    assert [group.drop[0] for group in plan.groups] == expected.drop  # the order of decision
    shortfall = plan.shortfall
    assert shortfall.triplets + shortfall.pairs + shortfall.missing == shortfall.wanted == drops


def test_the_public_call_takes_a_table_in_arrow_or_in_a_file(tmp_path: Path) -> None:
    scores = random_scores(36)
    table = made_up.arrow_table(scores)
    parquet.write_table(table, tmp_path / "scores.parquet")
    plan = select(scores, ratio=0.25)
    for source in (table, tmp_path / "scores.parquet", str(tmp_path / "scores.parquet")):
        assert interlace.select(source, method="interlace", ratio=0.25) == plan


@pytest.mark.parametrize(("n_layers", "drops"), [(36, [3, 5, 7, 9]), (28, [2, 4, 5, 7])])
def test_k_is_the_published_one_at_each_ratio(n_layers: int, drops: list[int]) -> None:
    scores = random_scores(n_layers)
    plans = [select(scores, ratio=ratio) for ratio in (0.10, 0.15, 0.20, 0.25)]
    assert [len(plan.drop) for plan in plans] == drops
    assert {plan.shortfall.policy for plan in plans} == {"pairs"}


def test_k_is_not_lowered_by_binary_fractions() -> None:
    scores = random_scores(100)
    assert len(select(scores, method="random", ratio=0.29).drop) == 29  # 0.29 * 100 < 29 in floats


def test_deepstack_layers_are_protected_unless_set_otherwise() -> None:
    scores = made_up.cosine_table([0.5] * 9, [0.5] * 8, [0.9, 0.8, 0.1, 0.2, 0.1, 0.1, 0.1])
    scores = Scores(9, 3, scores.values, {})
    plan = select(scores, ratio=0.12)
    assert (plan.groups[0].first, plan.protected) == (3, [0, 1, 2])
    assert select(scores, ratio=0.12, protect_first=0).groups[0].first == 0
