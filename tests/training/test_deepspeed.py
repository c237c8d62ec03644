"""Training over DeepSpeed ends as training without it does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nodes import ended
from plans import weights
from training_runs import (
    KILL_IN_UPDATE,
    TUNED,
    assert_ends,
    column,
    curve,
    linked,
    moved_weights,
    start_stage,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only"),
]
RUNS: dict[str, tuple[int, dict[str, Any]]] = {  # name -> nodes, changes of the recipe
    "one": (1, {}),
    "two": (2, {}),
    "two over stage 2": (2, {"zero_stage": 2}),
    "offloaded": (1, {"offload": "all"}),
    "bfloat16": (1, {"dtype": "bfloat16"}),
}
KILL = KILL_IN_UPDATE.format(6)  # after the resume point at 4
KILL_IF_STARTED_OVER = KILL_IN_UPDATE.format(3)


@pytest.fixture(scope="module")
def zero_runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders tuned over DeepSpeed: in one go, killed and run again, and by two, then one node."""
    names = [*RUNS, *(f"{name}, killed" for name in RUNS), "two, then one"]
    runs = {name: linked(project, tmp_path_factory.mktemp("zero")) for name in names}
    for name, (nodes, changes) in RUNS.items():
        killed = runs[f"{name}, killed"]
        pair = [
            start_stage(runs[name], nodes, **changes),
            start_stage(killed, nodes, setup=KILL, **changes),
        ]
        assert_ends(pair[0])
        assert_killed(pair[1], killed)
        assert_ends(start_stage(killed, nodes, setup=KILL_IF_STARTED_OVER, **changes))
    assert_killed(start_stage(runs["two, then one"], 2, setup=KILL), runs["two, then one"])
    assert_ends(start_stage(runs["two, then one"], setup=KILL_IF_STARTED_OVER))
    assert not any(list((run / ".scratch/finetune").iterdir()) for run in runs.values())
    return runs


def assert_killed(nodes: list[subprocess.Popen[str]], folder: Path) -> None:
    """The last process died, another one says so in one line, and a resume point is left."""
    ends = ended(nodes)
    assert [code for code, _ in ends] == ([1, 1] if len(ends) > 1 else [-signal.SIGKILL]), ends
    lines = [line for _, output in ends for line in output.splitlines()]
    failures = [line for line in lines if line.startswith("failed: process 0 of 2: another")]
    assert len(failures) == len(ends) - 1
    assert list((folder / ".scratch/finetune").glob("*/end-to-end/point-4"))
    assert not (folder / "artifacts/tuned").exists()


@pytest.mark.parametrize("name", ["one", "two", "two, then one", "two over stage 2", "offloaded"])
def test_the_curve_is_that_without_deepspeed(
    zero_runs: dict[str, Path], tuned_run: Path, name: str
) -> None:
    path, plain = zero_runs[name] / "metrics/loss.csv", tuned_run / "loss.csv"
    for quantity, tolerance in (("loss", 2e-4), ("grad_norm", 1e-3), ("tokens", 0)):
        assert column(path, quantity) == pytest.approx(column(plain, quantity), rel=tolerance)


def test_only_the_planned_layers_move(zero_runs: dict[str, Path], project: Path) -> None:
    pruned = project / "artifacts/pruned"
    expected = {name for name in weights(pruned) if name.startswith(TUNED)}
    assert moved_weights(pruned, zero_runs["two"] / "artifacts/tuned") == expected


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_resumes_to_the_same_weights_and_curve(
    zero_runs: dict[str, Path], name: str
) -> None:
    complete, resumed = zero_runs[name], zero_runs[f"{name}, killed"]
    assert moved_weights(complete / "artifacts/tuned", resumed / "artifacts/tuned") == set()
    assert curve(complete / "metrics/loss.csv") == curve(resumed / "metrics/loss.csv")
