"""The public call checks its arguments, and follows the ratio, the base or a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods import made_up
from pyarrow import parquet

import interlace
from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.plan.record import Decision
from interlace.selection.by_rule import layers_to_drop
from interlace.selection.select import select

SCORES = made_up.everything(np.random.default_rng(0), 36)
SMALL = made_up.everything(np.random.default_rng(0), 8)
DECISION = Decision(budget="params", target=0.8, drops=5, values={0: 1.0}, how="", reason="")


def test_the_public_call_takes_a_table_in_arrow_or_in_a_file(tmp_path: Path) -> None:
    table = made_up.arrow_table(SCORES)
    parquet.write_table(table, tmp_path / "scores.parquet")
    plan = select(SCORES, ratio=0.25)
    for source in (table, tmp_path / "scores.parquet", str(tmp_path / "scores.parquet")):
        assert interlace.select(source, method="interlace", ratio=0.25) == plan


def test_k_is_not_lowered_by_binary_fractions() -> None:
    assert layers_to_drop(0.29, 100) == 29  # 0.29 * 100 < 29 in floats


def test_deepstack_layers_are_protected_unless_set_otherwise() -> None:
    scores = made_up.table("cosine", [0.5] * 9, [0.5] * 8, [0.9, 0.8, 0.1, 0.2, 0.1, 0.1, 0.1])
    scores = replace(scores, deepstack_layers=3, provenance={"model": "m"})
    plan = select(scores, ratio=0.12)
    assert plan.sources == {"model": "m"}
    assert (plan.groups[0].first, plan.deepstack_layers, plan.protected) == (3, 3, [0, 1, 2])
    assert select(scores, ratio=0.12, protect_first=0).groups[0].first == 0


@pytest.mark.parametrize("n_layers", [3, 7, 24, 28, 36, 64, 100])
def test_a_ratio_that_drops_no_layer_names_the_smallest_that_does(n_layers: int) -> None:
    with pytest.raises(InputError, match=f"drops none of {n_layers} layers") as caught:
        layers_to_drop(0.0001, n_layers)
    assert layers_to_drop(float(str(caught.value).split()[-1]), n_layers) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        *(({"ratio": ratio}, rf"ratio = {ratio}") for ratio in (0, 1, -1, 1.5)),
        ({"ratio": "auto"}, r"ratio = auto: no budget"),
        ({"shortfall": "less"}, r"shortfall = 'less'.*'pairs', 'fewer' or 'error'"),
        ({"tuned": "some"}, r"tuned = 'some'.*'planned', 'spaced'"),
        ({"base": "most"}, r"base = 'most'.*'auto', 'all' or 'prunable'"),
        *(({"alpha": alpha}, r"alpha = \S+: ") for alpha in (-0.1, 1.1, float("nan"))),
        ({"protect_first": -1}, r"protect_first = -1: .* 0 or more"),
        ({"rounds": 0}, r"rounds = 0: "),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        interlace.select(SMALL, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual"}))
@pytest.mark.parametrize("drops", [-1, 8, 20])
def test_a_layer_at_least_stays_and_no_fewer_than_none_go(method: str, drops: int) -> None:
    with pytest.raises(InputError, match=rf"^drops = {drops}: must lie in \[0, 7\]"):
        select(SMALL, method=method, drops=drops)


@pytest.mark.parametrize("method", METHODS)
def test_a_share_of_no_layers_is_refused(method: str) -> None:
    with pytest.raises(InputError, match=r"all 8 layers are protected; .* select\.protect_first"):
        select(SMALL, method=method, base="prunable", protect_first=8)


def test_numbers_may_be_numpy_s() -> None:
    four = np.int64(4)
    assert len(select(SCORES, drops=four, protect_first=four).drop) == 4
    assert select(SCORES, method="manual", drop=np.array([4, 9])).drop == [4, 9]


@pytest.mark.parametrize(
    ("method", "options", "base", "base_layers", "drops"),
    [
        ("mixed", {}, "prunable", 26, 6),
        ("mixed", {"protect_first": 4, "protect_last": 8}, "prunable", 16, 4),
        ("mixed", {"base": "all"}, "all", 28, 7),
        ("interlace", {"protect_first": 3, "protect_last": 1}, "all", 28, 7),
        ("interlace", {"base": "prunable", "protect_last": 4}, "prunable", 24, 6),
    ],
)
def test_the_ratio_is_a_share_of_the_layers_not_protected_where_the_paper_says_so(
    method: str, options: dict[str, Any], base: str, base_layers: int, drops: int
) -> None:
    scores = made_up.everything(np.random.default_rng(0), 28)
    plan = select(scores, method=method, ratio=0.25, **options)
    assert (plan.base, plan.base_layers, len(plan.drop)) == (base, base_layers, drops)


def test_a_budget_s_decision_counts_only_with_a_ratio_of_auto() -> None:
    plan = select(SCORES, ratio="auto", decision=DECISION)
    assert (len(plan.drop), plan.ratio, plan.decision) == (5, 5 / 36, DECISION)
    assert select(SCORES, ratio=0.25, decision=DECISION) == select(SCORES, ratio=0.25)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("interlace", {}), ("mixed", {"alpha": 0.4}), ("random", {"seed": 9}), ("shortgpt", {})],
)
def test_the_plan_holds_the_settings_that_the_method_reads(
    method: str, settings: dict[str, Any]
) -> None:
    assert select(SCORES, method=method, alpha=0.4, seed=9).settings == settings
    assert select(SCORES, method="mixed").settings == {"alpha": 0.7}  # unless set


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_first_table_must_be_of_the_dense_model(rounds: int) -> None:
    pruned = made_up.everything(np.random.default_rng(0), 7)
    pruned = replace(pruned, kept_layers=(0, 1, 2, 4, 5, 6, 7))
    with pytest.raises(InputError, match="measured on a pruned model"):
        select(pruned, drops=2, rounds=rounds, later=[pruned] * (rounds - 1))
