"""A plan gives each layer one role, on paper and in its file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods import slow_version
from pydantic import ValidationError

from interlace.errors import InputError
from interlace.outputs import write_json
from interlace.plan import Plan, layers_to_drop, read_plan, select


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


@pytest.mark.parametrize("method", ["interlace", "consecutive", "random"])
def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path: Path, method: str) -> None:
    scores = slow_version.random_scores(np.random.default_rng(0), 36, decimals=9)
    plan = select(scores, method=method, ratio=0.25, protect_first=3)
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


@pytest.mark.parametrize("module", ["scores", "plan", "methods"])
def test_choosing_layers_imports_no_torch(module: str) -> None:
    code = f"import sys, interlace.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_select_imports_no_torch() -> None:
    code = "import sys, interlace; interlace.select; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
