"""All ways of healing work together in any number of processes; the reference is dense."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from plans import PLAN
from sources_json import pinned_model
from training_runs import RECIPE, assert_ends, column, linked, moved_weights, start_stage, tune

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.healing.heal import heal_checkpoint, train_reference
from interlace.params.healing import Finetune, Recipe
from interlace.selection.reference import reference_plan

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")
COMBINED: dict[str, Any] = {
    "distill_logits": 1.0,
    "distill_states": 1.0,
    "lora_rank": 4,
    "lora_dropout": 0.0,
    "local_steps": 4,
}


def test_a_damaged_configuration_is_named_before_training(project: Path, tmp_path: Path) -> None:
    pruned = Checkpoint(Path(shutil.copytree(project / "artifacts/pruned", tmp_path / "pruned")))
    pruned.config_file.write_text("{")
    with pytest.raises(InputError, match=r"pruned/config\.json: not readable JSON"):
        heal_checkpoint(
            pruned,
            pruned,
            project / "data/train",
            tmp_path / "tuned",
            (tmp_path / "local.csv", tmp_path / "loss.csv"),
            plan=PLAN,
            params=Finetune(**RECIPE),
            seed=0,
            scratch=tmp_path / "scratch",
        )


@pytest.fixture(scope="module")
def plain_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All ways of healing, in this process alone and without DeepSpeed."""
    out = tmp_path_factory.mktemp("plain")
    tune(project, out, **COMBINED)
    return out


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_two_processes_heal_as_one_without_deepspeed(
    project: Path, plain_run: Path, tmp_path: Path, zero_stage: int
) -> None:
    folder = linked(project, tmp_path)
    assert_ends(start_stage(folder, 2, zero_stage=zero_stage, **COMBINED))
    for stage_curve, curve, quantity in (
        ("loss.csv", "loss.csv", "loss"),
        ("local_loss.csv", "local.csv", "relative_error"),
    ):
        expected = column(plain_run / curve, quantity)
        values = column(folder / "metrics" / stage_curve, quantity)
        assert values and values == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@linux_only
@pytest.mark.skipif(torch.cuda.is_available(), reason="the launcher wants a GPU for each process")
def test_deepspeed_s_own_launcher_starts_the_stage(
    project: Path, tuned_run: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    runner = ["python", "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", port]
    stage = ["--module", "stages.finetune", "--params", "mine.yaml"]
    folder = linked(project, tmp_path / "stage")
    assert_ends(start_stage(folder, launch=[*runner, *stage], max_steps=1))
    (loss,) = column(folder / "metrics/loss.csv")
    assert loss == pytest.approx(column(tuned_run / "loss.csv")[0], rel=2e-4)


def test_a_reference_run_tunes_the_planned_layers_of_the_dense_model(
    project: Path, dense_dir: Path, tmp_path: Path
) -> None:
    plan = reference_plan("dense-ft", 0.34, None, pinned_model())
    assert plan is not None
    train_reference(
        Checkpoint(dense_dir),
        project / "data/train",
        tmp_path / "reference",
        plan=plan,
        params=Recipe(**(RECIPE | {"max_steps": 2})),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    moved = moved_weights(dense_dir, tmp_path / "reference")
    assert {name.split(".")[3] for name in moved} == {"4", "5"}
