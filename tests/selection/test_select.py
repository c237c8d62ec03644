"""A plan gives each layer one role, on paper and in its file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods import made_up, slow_version
from pydantic import ValidationError

from interlace.errors import InputError
from interlace.methods.registry import METHODS
from interlace.outputs import write_json
from interlace.plan.record import Decision, Plan, read_decision, read_plan
from interlace.selection.select import layers_to_drop, select


def record(**changes: Any) -> dict[str, Any]:
    return {
        "method": "interlace",
        "ratio": 0.25,
        "n_layers": 8,
        "drop": [3, 5],
        "tune": [4, 6],
        "freeze": [0, 1, 2, 7],
        "groups": [],
        "protected": [0, 1, 2],
        "shortfall": {"policy": "pairs", "wanted": 2, "triplets": 2, "pairs": 0, "missing": 0},
        "sources": {},
    } | changes


def test_a_sound_plan_is_accepted() -> None:
    plan = Plan.model_validate(record())
    assert plan.keep == [0, 1, 2, 4, 6, 7]
    assert plan.tuned_positions == [3, 4]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tune": [3, 4, 6]}, "once"),
        ({"freeze": [0, 1, 2]}, "each of the layers 0 to 7 once"),
        ({"freeze": [0, 1, 2, 7, 8]}, "each of the layers 0 to 7 once"),
        ({"drop": [5, 3]}, "drop must be sorted"),
        ({"drop": [3, 3, 5]}, "drop must be sorted, without repeats"),
        ({"protected": [2, 3]}, r"layers \[3\] are both dropped and protected"),
        ({"n_layers": 0}, "n_layers"),
        ({"extra": 1}, "extra"),
        ({"drop": [3, 5.5]}, "drop"),
    ],
)
def test_a_broken_plan_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Plan.model_validate(record(**changes))


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path: Path, method: str) -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    plan = select(scores, method=method, ratio=0.2, protect_first=1, drop=[4, 9], tune=[5])
    write_json(tmp_path / "plan.json", plan.model_dump())
    assert read_plan(tmp_path / "plan.json") == plan


def test_the_file_holds_the_contract_s_keys(tmp_path: Path) -> None:
    scores = slow_version.random_scores(np.random.default_rng(0), 36, decimals=9)
    held = json.loads(json.dumps(select(scores, ratio=0.25).model_dump()))
    assert set(held) >= set(record())
    assert {"kind", "layers", "score", "layer_scores", "drop", "tune", "anchor"} <= set(
        held["groups"][0]
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "plan.json: "),
        (json.dumps(record(drop=[5, 3])), "plan.json: drop must be sorted"),
        (json.dumps(record(surprise=1)), "plan.json: surprise: unknown key"),
        (json.dumps({"method": "interlace"}), "n_layers: Field required"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_plan(tmp_path / "plan.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan.json: no such file; run `dvc repro select`"):
        read_plan(tmp_path / "plan.json")


def test_a_ratio_that_drops_no_layer_names_the_smallest_that_does() -> None:
    with pytest.raises(InputError, match=r"drops none of 36 layers; .* is 0\.0278$"):
        layers_to_drop(0.02, 36)


@pytest.mark.parametrize("n_layers", [3, 7, 24, 28, 36, 64, 100])
def test_the_smallest_ratio_it_names_drops_one(n_layers: int) -> None:
    with pytest.raises(InputError) as caught:
        layers_to_drop(0.0001, n_layers)
    assert layers_to_drop(float(str(caught.value).split()[-1]), n_layers) == 1


@pytest.mark.parametrize("ratio", [0, 1, -1, 1.5])
def test_select_refuses_a_ratio_outside_0_to_1(ratio: float) -> None:
    scores = slow_version.random_scores(np.random.default_rng(0), 8, decimals=2)
    with pytest.raises(InputError, match=f"ratio = {ratio}: must be"):
        select(scores, ratio=ratio)


@pytest.mark.parametrize(
    ("protect_first", "protect_last", "base", "drops"),
    [("auto", "auto", "auto", 6), (3, 1, "prunable", 6), (4, 8, "auto", 4), (0, 0, "auto", 7)],
)
def test_the_ratio_is_a_share_of_the_layers_not_protected_where_the_paper_says_so(
    protect_first: Any, protect_last: Any, base: Any, drops: int
) -> None:
    scores = made_up.everything(np.random.default_rng(0), 28)
    plan = select(
        scores,
        method="mixed",
        ratio=0.25,
        base=base,
        protect_first=protect_first,
        protect_last=protect_last,
    )
    assert len(plan.drop) == drops
    assert plan.base_layers == 28 - len(plan.protected)


def test_interlace_may_be_told_to_take_a_share_of_the_layers_not_protected() -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    plan = select(scores, ratio=0.25, base="prunable", protect_first=3, protect_last=1)
    assert (plan.base, plan.base_layers, len(plan.drop)) == ("prunable", 32, 8)


def decision(drops: int) -> Decision:
    return Decision(
        budget="params", target=0.8, drops=drops, values={0: 1.0}, how="measured", reason="so"
    )


def test_a_budget_s_decision_is_followed_and_kept() -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    plan = select(scores, ratio="auto", decision=decision(5))
    assert (len(plan.drop), plan.ratio, plan.decision) == (5, 5 / 36, decision(5))


def test_a_decision_counts_for_nothing_where_the_ratio_is_given() -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    assert select(scores, ratio=0.25, decision=decision(5)) == select(scores, ratio=0.25)


def test_auto_without_a_decision_says_what_makes_one() -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    with pytest.raises(InputError, match=r"no budget was decided on; run `dvc repro budget`$"):
        select(scores, ratio="auto")


def test_a_decision_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "budget.json", decision(5).model_dump())
    assert read_decision(tmp_path / "budget.json") == decision(5)
    (tmp_path / "budget.json").write_text("null")
    assert read_decision(tmp_path / "budget.json") is None


@pytest.mark.parametrize("text", ["{", "3", '{"drops": 3}'])
def test_a_broken_decision_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(InputError, match=r"budget\.json: ") as caught:
        read_decision(tmp_path / "budget.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("interlace", {}), ("mixed", {"alpha": 0.4}), ("random", {"seed": 9}), ("shortgpt", {})],
)
def test_the_plan_tells_what_the_method_was_told(method: str, settings: dict[str, Any]) -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    assert select(scores, method=method, alpha=0.4, seed=9).settings == settings


@pytest.mark.parametrize("module", ["scores", "plan", "methods"])
def test_choosing_layers_imports_no_torch(module: str) -> None:
    code = f"import sys, interlace.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_select_imports_no_torch() -> None:
    code = "import sys, interlace; interlace.select; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("protect_first", "drops"), [(8, None), (30, 2)])
def test_protecting_every_layer_is_refused(method: str, protect_first: int, drops: Any) -> None:
    scores = made_up.everything(np.random.default_rng(0), 8)
    with pytest.raises(InputError, match="all 8 layers are protected; lower"):
        select(scores, method=method, drops=drops, base="prunable", protect_first=protect_first)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"manual"}))
@pytest.mark.parametrize("drops", [-1, 8, 20])
def test_a_layer_at_least_stays_and_no_fewer_than_none_go(method: str, drops: int) -> None:
    scores = made_up.everything(np.random.default_rng(0), 8)
    with pytest.raises(InputError, match=rf"^drops = {drops}: must lie in \[0, 7\]"):
        select(scores, method=method, drops=drops)


def test_an_unknown_policy_is_refused() -> None:
    scores = made_up.everything(np.random.default_rng(0), 8)
    with pytest.raises(InputError, match=r"shortfall = 'less'.*'pairs', 'fewer' or 'error'"):
        select(scores, shortfall="less")  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_first_table_must_be_of_the_dense_model(rounds: int) -> None:
    scores = replace(made_up.everything(np.random.default_rng(0), 7), kept=(0, 1, 2, 4, 5, 6, 7))
    with pytest.raises(InputError, match="scores were measured on a pruned model"):
        select(scores, drops=2, rounds=rounds, later=[scores] * (rounds - 1))
