"""Healing moves the planned layers only, and an interruption costs nothing but time."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from drawn_rows import Draw
from safetensors.torch import load_file, save_file
from test_checkpoint import PLAN, PREFIX

import interlace
from interlace import finetune as finetuning
from interlace.checkpoint import tensor_files
from interlace.errors import ContractError, InputError
from interlace.finetune import TrainingRows, finetune, freeze_all_but, split_batch
from interlace.outputs import write_json
from interlace.params import Finetune
from interlace.sources import open_model

ROOT = Path(__file__).parents[1]
STEPS = 6
RECIPE: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "micro_batch_size": 2,
    "max_length": 512,
    "min_pixels": None,
    "max_pixels": None,
    "save_steps": 2,
    "log_steps": 1,
    "workers": 0,
    "zero_stage": 0,
}
TUNED = tuple(f"{PREFIX}.{position}." for position in PLAN.tuned_positions)
LEFT = 2 * (STEPS - 4) + 1  # passes behind the resume point at step 4, and one read ahead
DIE_IN_PASS = """
import os, signal
from interlace import chat
collate, calls = chat.collate, []
def killing(*args, **kwargs):
    calls.append(1)
    if len(calls) == {}:
        os.kill(os.getpid(), signal.SIGKILL)
    return collate(*args, **kwargs)
chat.collate = killing
"""
RUN = "import sys; from stages.finetune import main; main(['--params', 'mine.yaml'])"


@pytest.fixture(scope="module")
def project(dense_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the stage reads: the pruned checkpoint, the plan, the training rows."""
    folder = tmp_path_factory.mktemp("project")
    interlace.export(dense_dir, PLAN, folder / "artifacts/pruned", max_shard_mb=0.05)
    write_json(folder / "artifacts/plan.json", PLAN.model_dump())
    pinned = {"id": str(dense_dir), "files": {}, "trust_remote_code": False}
    write_json(folder / "artifacts/sources.json", {"pinned_model": pinned})
    pq.write_table(pa.Table.from_pylist(models.rows(16)), folder / "rows.parquet")
    Draw(folder / "data")(folder / "rows.parquet")
    return folder


def tune(project: Path, out: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Tune in this process, without DeepSpeed; returns the weights and the curve."""
    finetune(
        changes.pop("pruned", project / "artifacts/pruned"),
        project / "data/train",
        out / "tuned",
        out / "loss.csv",
        plan=PLAN,
        params=Finetune(**(RECIPE | changes)),
        seed=0,
        scratch=out / "scratch",
    )
    return weights(out / "tuned"), curve(out / "loss.csv")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in set(tensor_files(folder).values()):
        tensors |= load_file(path)
    return tensors


def curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    tune(project, out)
    return out


def test_frozen_weights_keep_their_bytes(project: Path, uninterrupted: Path) -> None:
    before, after = weights(project / "artifacts/pruned"), weights(uninterrupted / "tuned")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name.startswith(TUNED) for name in moved)


def test_a_plan_without_tuned_layers_leaves_the_pruned_checkpoint(
    project: Path, tmp_path: Path
) -> None:
    frozen = PLAN.model_copy(update={"tune": [], "freeze": sorted(PLAN.tune + PLAN.freeze)})
    finetune(
        project / "artifacts/pruned",
        project / "data/train",
        tmp_path / "tuned",
        tmp_path / "loss.csv",
        plan=frozen,
        params=Finetune(),
        seed=0,
        scratch=tmp_path / "scratch",
    )
    before, after = (
        weights(folder) for folder in (project / "artifacts/pruned", tmp_path / "tuned")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert curve(tmp_path / "loss.csv") == []


def test_every_weight_of_a_planned_layer_moves(project: Path, uninterrupted: Path) -> None:
    before, after = weights(project / "artifacts/pruned"), weights(uninterrupted / "tuned")
    still = [n for n in before if n.startswith(TUNED) and torch.equal(before[n], after[n])]
    assert still == []


def test_files_without_planned_layers_are_the_pruned_ones(
    project: Path, uninterrupted: Path
) -> None:
    pruned, tuned = project / "artifacts/pruned", uninterrupted / "tuned"
    rewritten = {file.name for name, file in tensor_files(pruned).items() if name.startswith(TUNED)}
    assert {path.name for path in pruned.iterdir()} == {path.name for path in tuned.iterdir()}
    for path in pruned.iterdir():
        same = path.read_bytes() == (tuned / path.name).read_bytes()
        assert same is (path.name not in rewritten), path.name


def test_the_tuned_folder_opens_with_stock_transformers(uninterrupted: Path) -> None:
    model = open_model(uninterrupted / "tuned")
    assert model.config.text_config.num_hidden_layers == 4


def test_the_curve_has_a_point_per_logged_step(uninterrupted: Path) -> None:
    points = curve(uninterrupted / "loss.csv")
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    assert points[0].keys() == {"step", "loss", "learning_rate", "grad_norm"}


def test_the_loss_falls(uninterrupted: Path) -> None:
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert sum(losses[-2:]) < sum(losses[:2])


def test_accumulated_passes_tune_as_one_large_pass(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    _, points = tune(project, tmp_path, micro_batch_size=4)
    losses = [point["loss"] for point in curve(uninterrupted / "loss.csv")]
    assert [point["loss"] for point in points] == pytest.approx(losses, rel=1e-3)


def test_gradient_checkpointing_changes_no_result(
    project: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    tensors, _ = tune(project, tmp_path, gradient_checkpointing=False)
    expected = weights(uninterrupted / "tuned")
    for name in expected:
        torch.testing.assert_close(tensors[name], expected[name], rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    project: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collate, calls = finetuning.chat.collate, []

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 10:  # in step 5, behind the resume point at 4
            raise KeyboardInterrupt
        return collate(*args, **kwargs)

    monkeypatch.setattr(finetuning.chat, "collate", interrupting)
    with pytest.raises(KeyboardInterrupt):
        tune(project, tmp_path)
    assert not (tmp_path / "tuned").exists()
    assert (tmp_path / "scratch/checkpoint-4").is_dir()
    tensors, points = tune(project, tmp_path)
    assert len(calls) == 10 + LEFT  # it did not start over
    assert points == curve(uninterrupted / "loss.csv")
    expected = weights(uninterrupted / "tuned")
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_resume_point_that_was_not_finished_is_passed_over(tmp_path: Path) -> None:
    for step, finished in ((2, True), (10, True), (12, False)):
        point = tmp_path / f"checkpoint-{step}"
        point.mkdir()
        if finished:
            (point / "trainer_state.json").write_text("{}")
    assert finetuning._resume_point(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_loss_that_is_not_finite_stops_the_stage(project: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    pruned.mkdir()
    for path in (project / "artifacts/pruned").iterdir():
        (pruned / path.name).write_bytes(path.read_bytes())
    name = f"{TUNED[0]}mlp.down_proj.weight"
    file = tensor_files(pruned)[name]
    tensors = load_file(file)
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ContractError, match="loss is not finite"):
        tune(project, tmp_path, pruned=pruned, max_steps=1)
    assert not (tmp_path / "tuned").exists()


def test_only_the_planned_layers_take_gradients(dense_dir: Path) -> None:
    model = open_model(dense_dir)
    freeze_all_but(model, [1, 4])
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = {name.removeprefix(f"{PREFIX}.").split(".")[0] for name in free}
    assert all(name.startswith(PREFIX) for name in free)
    assert layers == {"1", "4"}


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "split"),
    [(32, 16, 1, (16, 2)), (32, 16, 2, (16, 1)), (32, 16, 8, (4, 1)), (4, 16, 1, (4, 1))],
)
def test_an_update_sees_the_whole_batch_over_all_processes(
    batch: int, micro: int, processes: int, split: tuple[int, int]
) -> None:
    params = Finetune(batch_size=batch, micro_batch_size=micro)
    assert split_batch(params, processes) == split
    assert split[0] * split[1] * processes == batch


@pytest.mark.parametrize(("batch", "micro", "processes"), [(10, 4, 1), (32, 16, 3), (4, 4, 8)])
def test_a_batch_that_does_not_divide_is_refused(batch: int, micro: int, processes: int) -> None:
    with pytest.raises(InputError, match=f"batch_size = {batch} does not divide"):
        split_batch(Finetune(batch_size=batch, micro_batch_size=micro), processes)


def test_a_row_that_is_too_long_is_named(project: Path, processor: Any, tmp_path: Path) -> None:
    rows = TrainingRows(project / "data/train", processor, 8, tmp_path)
    with pytest.raises(InputError, match=r"sample [0-9a-f]{16} of made_up: .* max_length = 8"):
        rows[0]


def stage_in(folder: Path, before: str = "", **changes: Any) -> subprocess.Popen[str]:
    """Start the stage with ZeRO-3 in a laid out folder."""
    params = {"model": {"id": "m"}, "data": {"id": "d"}, "finetune": RECIPE | changes}
    (folder / "mine.yaml").write_text(yaml.safe_dump(params))
    return subprocess.Popen(
        [sys.executable, "-c", before + RUN],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output


@pytest.fixture(scope="module")
def with_zero(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders tuned with ZeRO-3, side by side: one run in one go, one killed and run again."""
    folders = {}
    for name in ("in one go", "killed"):
        folders[name] = tmp_path_factory.mktemp("zero")
        for entry in ("artifacts", "data"):
            (folders[name] / entry).mkdir()
            for path in (project / entry).iterdir():
                (folders[name] / entry / path.name).symlink_to(path)
    runs = [
        stage_in(folders["in one go"], zero_stage=3),
        stage_in(folders["killed"], DIE_IN_PASS.format(10), zero_stage=3),
    ]
    finished(runs[0])
    finished(runs[1], -signal.SIGKILL)
    assert list((folders["killed"] / ".scratch/finetune").glob("*/checkpoint-4"))
    assert not (folders["killed"] / "artifacts/tuned").exists()
    finished(stage_in(folders["killed"], DIE_IN_PASS.format(LEFT + 1), zero_stage=3))
    return folders


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed runs on Linux only")
class TestZero3:
    def test_the_curve_is_that_without_deepspeed(
        self, with_zero: dict[str, Path], uninterrupted: Path
    ) -> None:
        found = [p["loss"] for p in curve(with_zero["in one go"] / "metrics/loss.csv")]
        expected = [p["loss"] for p in curve(uninterrupted / "loss.csv")]
        assert found == pytest.approx(expected, rel=1e-3)

    def test_only_the_planned_layers_move(self, with_zero: dict[str, Path], project: Path) -> None:
        before = weights(project / "artifacts/pruned")
        after = weights(with_zero["in one go"] / "artifacts/tuned")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {name for name in before if name.startswith(TUNED)}

    def test_a_killed_run_goes_on_to_the_same_weights(self, with_zero: dict[str, Path]) -> None:
        whole, resumed = (weights(with_zero[n] / "artifacts/tuned") for n in with_zero)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def test_a_killed_run_goes_on_to_the_same_curve(self, with_zero: dict[str, Path]) -> None:
        whole, resumed = (curve(with_zero[n] / "metrics/loss.csv") for n in with_zero)
        assert whole == resumed

    def test_a_finished_run_leaves_no_scratch(self, with_zero: dict[str, Path]) -> None:
        for folder in with_zero.values():
            assert list((folder / ".scratch/finetune").iterdir()) == []
            json.loads((folder / "artifacts/tuned/config.json").read_text())
