"""Training over DeepSpeed ends as training without it does."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
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
VARIANTS = {
    "stage 2": {"zero_stage": 2},
    "offloaded": {"offload": "all"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def zero_runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders tuned over DeepSpeed: in one go, killed and run again, by two and by one process."""
    names = ["one", "two", "two, killed", "two, then one"]
    names += [f"{name}{end}" for name in VARIANTS for end in ("", ", killed")] + ["one, killed"]
    runs = {name: linked(project, tmp_path_factory.mktemp("zero")) for name in names}
    kill = KILL_IN_UPDATE.format(6)  # after the resume point at 4
    kill_if_started_over = KILL_IN_UPDATE.format(3)
    for name, changes in {"one": {}, **VARIANTS}.items():
        pair = [
            start_stage(runs[name], **changes),
            start_stage(runs[f"{name}, killed"], setup=kill, **changes),
        ]
        assert_ends(pair[0])
        assert_ends(pair[1], -signal.SIGKILL)
        killed = runs[f"{name}, killed"]
        assert list((killed / ".scratch/finetune").glob("*/end-to-end/point-4"))
        assert not (killed / "artifacts/tuned").exists()
        assert_ends(start_stage(killed, setup=kill_if_started_over, **changes))
    assert_ends(start_stage(runs["two"], 2))
    for name, processes in (("two, killed", 2), ("two, then one", 1)):
        assert_ends(start_stage(runs[name], 2, setup=kill), 1)
        assert_ends(start_stage(runs[name], processes, setup=kill_if_started_over))
    assert not any(list((run / ".scratch/finetune").iterdir()) for run in runs.values())
    return runs


@pytest.mark.parametrize("name", ["one", "two", "two, then one", "stage 2", "offloaded"])
def test_the_curve_is_that_without_deepspeed(
    zero_runs: dict[str, Path], tuned_run: Path, name: str
) -> None:
    path, plain = zero_runs[name] / "metrics/loss.csv", tuned_run / "loss.csv"
    for quantity, tolerance in (("loss", 2e-4), ("grad_norm", 2e-4), ("tokens", 0)):
        assert column(path, quantity) == pytest.approx(column(plain, quantity), rel=tolerance)


def test_only_the_planned_layers_move(zero_runs: dict[str, Path], project: Path) -> None:
    pruned = project / "artifacts/pruned"
    expected = {name for name in weights(pruned) if name.startswith(TUNED)}
    assert moved_weights(pruned, zero_runs["two"] / "artifacts/tuned") == expected


@pytest.mark.parametrize("name", ["one", "two", *VARIANTS])
def test_a_killed_run_resumes_to_the_same_weights_and_curve(
    zero_runs: dict[str, Path], name: str
) -> None:
    complete, resumed = zero_runs[name], zero_runs[f"{name}, killed"]
    assert moved_weights(complete / "artifacts/tuned", resumed / "artifacts/tuned") == set()
    assert curve(complete / "metrics/loss.csv") == curve(resumed / "metrics/loss.csv")
