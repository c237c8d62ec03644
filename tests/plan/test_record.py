"""A plan gives each layer one role, on paper and in its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods import made_up
from plans import make_plan
from pydantic import ValidationError

from interlace.errors import InputError, MissingInputError
from interlace.methods.registry import METHODS
from interlace.plan.record import (
    Decision,
    Plan,
    Stability,
    read_decision,
    read_plan,
    read_reference,
)
from interlace.selection.select import select
from interlace.system.outputs import write_json

KEYS = {"method", "ratio", "n_layers", "drop", "tune", "freeze", "groups", "protected", "sources"}
GROUP_KEYS = {"kind", "layers", "score", "layer_scores", "drop", "tune", "anchor"}
RECORD: dict[str, Any] = make_plan([3, 5], [4, 6], 8).model_dump() | {"protected": [0, 1, 2]}
DECISION = Decision(budget="params", target=0.8, drops=5, values={0: 1.0}, how="", reason="")


def test_the_pruned_decoder_keeps_the_order_of_the_layers() -> None:
    plan = Plan.model_validate(RECORD)
    assert (plan.keep, plan.tuned_positions) == ([0, 1, 2, 4, 6, 7], [3, 4])


def test_a_plan_is_shown_in_one_line_and_saved_for_the_stages(tmp_path: Path) -> None:
    plan = make_plan([3, 5], [4, 6], 8)
    assert str(plan) == repr(plan) and "\n" not in repr(plan)
    assert "of 8 layers, drop [3, 5], tune [4, 6]" in repr(plan)
    plan.save(tmp_path / "plan.json")
    assert read_plan(str(tmp_path / "plan.json")) == plan


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tune": [3, 4, 6]}, "once"),
        ({"freeze": [0, 1, 2]}, "layers 0 to 7 once"),
        ({"drop": [5, 3]}, "drop must be sorted"),
        ({"drop": [3, 3, 5]}, "drop must be sorted, without repeats"),
        ({"protected": [2, 1]}, "protected must be sorted"),
        ({"protected": [2, 3]}, r"layers \[3\] .* protected"),
        (
            {"layer_kinds": {"decoder": "gemma2", "fields": {"layer_types": ["a", "b"]}}},
            "layer_kinds must hold each of the 8 layers once",
        ),
        ({"n_layers": 0}, "n_layers"),
        ({"n_layers": 10**9}, "n_layers"),
        ({"drop": [*range(8)], "tune": [], "freeze": []}, "drop holds all of the 8 layers"),
        ({"drop": [3, 8]}, "layers 0 to 7 once"),
        ({"drop": [-1, 3]}, "layers 0 to 7 once"),
        ({"ratio": float("nan")}, "ratio"),
    ],
)
def test_a_broken_plan_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Plan.model_validate(RECORD | changes)


@pytest.mark.parametrize("layers", [[3.0, 5.0], ["3", "5"], [True, 3], [3.5], [None], 3])
def test_layers_in_a_file_are_whole_numbers(tmp_path: Path, layers: Any) -> None:
    path = tmp_path / "plan.json"
    write_json(path, RECORD | {"drop": layers})
    with pytest.raises(MissingInputError, match=r"plan\.json: drop"):
        read_plan(path)


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_comes_back_from_its_file_with_the_contract_s_keys(
    tmp_path: Path, method: str
) -> None:
    scores = made_up.everything(np.random.default_rng(0), 36)
    plan = select(scores, method=method, ratio=0.2, protect_first=1, drop=[4, 9], tune=[5])
    stability = Stability(draws=200, same=0.87, dropped={7: 0.61})
    plan = plan.model_copy(update={"stability": stability})
    write_json(tmp_path / "plan.json", plan.model_dump(mode="json"))
    assert read_plan(tmp_path / "plan.json") == plan
    values = json.loads((tmp_path / "plan.json").read_text())
    assert KEYS | {"shortfall"} <= values.keys()
    assert all(group.keys() >= GROUP_KEYS for group in values["groups"])


@pytest.mark.parametrize("decision", [DECISION, None])
def test_a_decision_comes_back_from_its_file(tmp_path: Path, decision: Decision | None) -> None:
    write_json(tmp_path / "budget.json", decision and decision.model_dump(mode="json"))
    assert read_decision(tmp_path / "budget.json") == decision


@pytest.mark.parametrize(
    ("read", "text", "complaint"),
    [
        (read_plan, "{", ""),
        (read_plan, json.dumps(RECORD | {"drop": [5, 3]}), "drop must be sorted"),
        (read_plan, json.dumps(RECORD | {"surprise": 1}), "surprise: unknown key"),
        (read_reference, '{"method": "interlace"}', "n_layers: Field required"),
        (read_decision, "3", ""),
        (read_decision, '{"drops": 3}', "target: Field required"),
    ],
)
def test_a_broken_file_is_named_in_one_line(
    tmp_path: Path, read: Callable[[Path], Any], text: str, complaint: str
) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(InputError, match=rf"record\.json: .*{complaint}") as caught:
        read(tmp_path / "record.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_plan, read_decision, read_reference])
def test_a_missing_file_is_a_missing_input(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(MissingInputError, match=r"record\.json: no such file"):
        read(tmp_path / "record.json")
