"""The plan of a reference run depends on nothing that does not change the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sources_json import pinned_model

from interlace.plan.record import Decision, Plan, read_reference
from interlace.selection.reference import reference_plan, write_reference

PINNED = pinned_model(n_layers=24)
DECISION = Decision(budget="params", target=0.8, drops=5, values={}, how="", reason="")


def planned(reference: str, ratio: Any = 0.25, decision: Decision | None = None) -> Plan:
    plan = reference_plan(reference, ratio, decision, PINNED)
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    ("reference", "ratio", "decision", "tune"),
    [
        ("dense-ft", 0.25, None, range(18, 24)),
        ("dense-ft", "auto", DECISION, range(19, 24)),
        ("dense-sft", 0.25, None, range(24)),
        ("dense-sft", "auto", DECISION, range(24)),
    ],
)
def test_a_reference_tunes_the_last_k_or_all_layers_and_drops_none(
    reference: str, ratio: Any, decision: Decision | None, tune: range
) -> None:
    plan = planned(reference, ratio, decision)
    assert (plan.method, plan.drop, plan.tune) == (reference, [], list(tune))


def test_ratios_that_tune_the_same_layers_have_the_same_plan() -> None:
    assert planned("dense-ft", 0.25) == planned("dense-ft", 0.26) != planned("dense-ft", 0.3)
    assert planned("dense-sft", 0.1) == planned("dense-sft", 0.4)


@pytest.mark.parametrize("reference", ["none", "dense-sft"])
def test_a_plan_comes_back_from_its_file(reference: str, tmp_path: Path) -> None:
    plan = reference_plan(reference, 0.25, None, PINNED)
    write_reference(tmp_path / "plan.json", plan)
    assert read_reference(tmp_path / "plan.json") == plan
    assert (plan is None) == (reference == "none")
