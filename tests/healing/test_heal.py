"""Local healing, distillation and adapters work together, in any number of processes."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from healing.test_finetune import curve, project, uninterrupted
from healing.test_local import healed
from training.test_deepspeed import finished, start

__all__ = ["project", "uninterrupted"]
ALL: dict[str, Any] = {
    "distill_logits": 1.0,
    "distill_states": 1.0,
    "lora_rank": 4,
    "lora_dropout": 0.0,
    "local_steps": 4,
    "local_learning_rate": 3e-3,
}


def laid_out(project: Path, folder: Path) -> Path:
    """A folder in which the stage can run, with the inputs of another."""
    for entry in ("artifacts", "data"):
        (folder / entry).mkdir()
        for path in (project / entry).iterdir():
            (folder / entry / path.name).symlink_to(path)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")
def test_two_processes_over_deepspeed_heal_as_one_without_it(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    finished(start(laid_out(project, folder), 2, **ALL))
    plain = {"max_steps": 6, "learning_rate": 1e-2} | ALL
    healed(project, dense_dir, tmp_path / "plain", **plain)
    for found, expected in (("loss.csv", "loss.csv"), ("local_loss.csv", "local.csv")):
        points = curve(folder / "metrics" / found)
        column = "relative_error" if "local" in found else "loss"
        values = [point[column] for point in curve(tmp_path / "plain" / expected)]
        assert values
        assert [point[column] for point in points] == pytest.approx(values, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the launcher wants a GPU for each process")
def test_deepspeed_s_own_launcher_starts_the_stage(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runner = ["-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", port]
    stage = ["--module", "stages.finetune", "--params", "mine.yaml"]
    finished(start(laid_out(project, tmp_path), 2, launch=[*runner, *stage], max_steps=1))
    found, expected = (curve(f / "loss.csv") for f in (tmp_path / "metrics", uninterrupted))
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=2e-4)
