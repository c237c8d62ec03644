"""Training over DeepSpeed ends as training without it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from healing.test_finetune import RECIPE, TUNED, curve, project, uninterrupted, weights

__all__ = ["project", "uninterrupted"]

ROOT = Path(__file__).parents[2]
ZERO = {"zero_stage": 3}
DIE_IN_UPDATE = """
import os, signal
from interlace.training import engines, loop as training
from interlace.training import resume as resume_points, rows as training_rows
update, calls = training.update, []
def killing(*args):
    calls.append(1)
    if len(calls) == {}:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*args)
training.update = killing
"""
RUN = "import sys; from stages.finetune import main; main(['--params', 'mine.yaml'])"


def start(
    folder: Path,
    processes: int,
    before: str = "",
    launch: Sequence[str] | None = None,
    **changes: Any,
) -> subprocess.Popen[str]:
    """Start the stage with ZeRO in a laid out folder; `launch` replaces torchrun and the script."""
    params = {"model": {"id": "m"}, "data": {"id": "d"}, "finetune": RECIPE | ZERO | changes}
    (folder / "mine.yaml").write_text(yaml.safe_dump(params))
    (folder / "run.py").write_text(before + RUN)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(launch or [*(torchrun if processes > 1 else []), "run.py"])],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output


@pytest.fixture(scope="module")
def with_zero(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders tuned over DeepSpeed: in one go, killed and run again, by two and by one process."""
    folders = {}
    for name in ("one", "killed", "two", "two, then one", "stage 2", "offloaded"):
        folders[name] = tmp_path_factory.mktemp("zero")
        for entry in ("artifacts", "data"):
            (folders[name] / entry).mkdir()
            for path in (project / entry).iterdir():
                (folders[name] / entry / path.name).symlink_to(path)
    die = DIE_IN_UPDATE.format(6)
    runs = [start(folders["one"], 1), start(folders["killed"], 1, die)]
    finished(runs[0])
    finished(runs[1], -signal.SIGKILL)
    assert list((folders["killed"] / ".scratch/finetune").glob("*/end-to-end/point-4"))
    assert not (folders["killed"] / "artifacts/tuned").exists()
    finished(start(folders["killed"], 1, DIE_IN_UPDATE.format(3)))
    finished(start(folders["two"], 2))
    finished(start(folders["two, then one"], 2, die), 1)
    finished(start(folders["two, then one"], 1, DIE_IN_UPDATE.format(3)))
    runs = [
        start(folders["stage 2"], 1, DIE_IN_UPDATE.format(6), zero_stage=2),
        start(folders["offloaded"], 1, DIE_IN_UPDATE.format(6), offload="all"),
    ]
    for run in runs:
        finished(run, -signal.SIGKILL)
    runs = [
        start(folders["stage 2"], 1, zero_stage=2),
        start(folders["offloaded"], 1, offload="all"),
    ]
    for run in runs:
        finished(run)
    return folders


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")
class TestZero:
    @pytest.mark.parametrize("name", ["one", "two", "two, then one", "stage 2", "offloaded"])
    def test_the_curve_is_that_without_deepspeed(
        self, with_zero: dict[str, Path], uninterrupted: Path, name: str
    ) -> None:
        found = curve(with_zero[name] / "metrics/loss.csv")
        expected = curve(uninterrupted / "loss.csv")
        for column in ("loss", "grad_norm"):
            assert [p[column] for p in found] == pytest.approx(
                [p[column] for p in expected], rel=2e-4
            )
        assert [p["tokens"] for p in found] == [p["tokens"] for p in expected]

    def test_only_the_planned_layers_move(self, with_zero: dict[str, Path], project: Path) -> None:
        before = weights(project / "artifacts/pruned")
        after = weights(with_zero["two"] / "artifacts/tuned")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name for name in before if name.startswith(TUNED)}

    def test_a_killed_run_goes_on_to_the_same_weights(self, with_zero: dict[str, Path]) -> None:
        whole, resumed = (weights(with_zero[n] / "artifacts/tuned") for n in ("one", "killed"))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def test_a_killed_run_goes_on_to_the_same_curve(self, with_zero: dict[str, Path]) -> None:
        whole, resumed = (curve(with_zero[n] / "metrics/loss.csv") for n in ("one", "killed"))
        assert whole == resumed

    def test_a_finished_run_leaves_no_scratch(self, with_zero: dict[str, Path]) -> None:
        for folder in with_zero.values():
            assert list((folder / ".scratch/finetune").iterdir()) == []
            json.loads((folder / "artifacts/tuned/config.json").read_text())
